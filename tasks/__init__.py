"""The stages of a lab's life, with retries, deadlines and logs. Adapters do the work itself.

Each stage is a Prefect task made by :func:`tasks.stage.stage`: only transient errors are retried,
and each stage may be called again. The stages, the module of each, and what each may not do:

- find place (site): Asks AWS which account the credentials belong to. May not touch anything.
- preflight (preflight): Finds every problem that can be known beforehand, and selects the models.
  May not touch anything of a lab; it may agree to a model's terms if the settings allow it.
- hold lab (hold): Takes the lab's lease, so that only one run works on the lab. May not wait for a
  run of the same kind if that would do the same work twice.
- schedule end (lifetime): Registers the lab's end in every place that can store it. May not make
  anything billable.
- plan image (image): Names the image after everything that goes into it. May not build or push.
- foundation (provision): Makes the image repository that all labs share. May not touch a lab.
- scan image (image): Inspects every wheel and writes the bill of materials. May not install or
  import a wheel.
- audit image (image): Asks public sources about the releases of an image. May not fail because a
  source does not answer.
- build image (image): Builds what was scanned, without a network. May not push.
- push image (image): Pushes what was scanned, audited and built. May not replace what the registry
  holds under the tag.
- provision (provision): Makes everything of a lab except a task of the new image. May not start a
  task whose image is not in the registry.
- rollout (rollout): Lets the new image take over, and waits until ECS and the gateway report that
  it has. May not end the old task before the new one serves.
- validate (validate): Asks every model for a whole and a streamed answer. May not stop at a model
  that fails.
- verify (verify): Checks in the cloud and at the gateway what must be true. May not change
  anything.
- check reason (teardown): Reads in the lab's record whether the lab is to be destroyed. May not
  destroy.
- destroy (teardown): Destroys what is in the lab's Terraform state. May not touch what labs share.
- look for leftovers (teardown): Looks in every service for what is left, and removes it. May not
  forget the lab while anything of it is left.
- purge (teardown): Removes what labs share. May not run while a lab has state.
- move end (extend): Moves the lab's end everywhere, or nowhere. May not exceed the longest life.
- allow (allow): Lets hosts in or shuts them out. May not touch the lab's task.
- follow deployer (allow): Moves the deployer's own rule to its new address. May not touch the rules
  for addresses that a person gave.
- new key (rotate): Lets AWS make another key. May not read a key or roll it out.
- check keys (rotate): Tries the new key and the previous one. May not log either.
- survey (survey): Finds every lab from the cloud alone. May not rely on Prefect's database.
- list labs (listing): Publishes the table of labs. May not change anything.
- watch (watch): Looks at one live lab, and sends the notices that are due. May not hold a lab.
"""
