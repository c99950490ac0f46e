"""The stages of a lab's life, one a file: retries, deadlines, logs. Adapters do the work itself.

Each stage is a Prefect task made by :func:`tasks.stage.stage`: only what is transient is tried
again, and each may be called again. The stages, the module of each, and what each may not do:

- find place (site): Asks AWS whose credentials these are. May not touch anything.
- preflight (preflight): Finds all that can be known to fail, and settles the models. May not touch
  anything of a lab; it may agree to a model's terms where the settings allow it.
- hold lab (hold): Takes the lab's lease, so that one run works on the lab. May not wait for a run
  of the same kind where that would do the same work twice.
- schedule end (lifetime): Registers the lab's end in every place that can know it. May not make
  anything billable.
- plan image (image): Names the image by all that goes into it. May not build or push.
- foundation (provision): Makes the image repository that all labs share. May not touch a lab.
- scan image (image): Looks into every wheel and writes the bill of materials. May not install or
  import what it looks into.
- audit image (image): Asks public sources about the releases of an image. May not fail because a
  source is silent.
- build image (image): Builds what was scanned, without a network. May not push.
- push image (image): Pushes what was scanned, audited and built. May not replace what the registry
  holds under the tag.
- provision (provision): Makes all of a lab but a task of the new image. May not start a task whose
  image is not in the registry.
- rollout (rollout): Lets the new image take over, by ECS's word and the gateway's. May not end what
  serves before the new task does.
- validate (validate): Asks every model, whole and streamed. May not stop at a model that fails.
- verify (verify): Asks the cloud and the gateway for what must be true. May not change anything.
- check reason (teardown): Asks the lab's record whether it is to be destroyed. May not destroy.
- destroy (teardown): Destroys what is in the lab's Terraform state. May not touch what labs share.
- look for leftovers (teardown): Looks in every service for what is left, and removes it. May not
  forget the lab while anything of it is left.
- purge (teardown): Removes what labs share. May not run while a lab has state.
- move end (extend): Moves the lab's end everywhere, or nowhere. May not exceed the longest life.
- allow (allow): Lets hosts in or shuts them out. May not touch the lab's task.
- follow deployer (allow): Moves the deployer's own rule to its new address. May not touch the rules
  that somebody gave.
- new key (rotate): Has AWS make another key. May not see a key, nor roll it out.
- check keys (rotate): Tries the new key and the one before. May not log either.
- survey (survey): Finds every lab by the cloud alone. May not trust Prefect's memory.
- list labs (listing): Publishes the table of labs. May not change anything.
- watch (watch): Looks at one live lab, and gives the notices that are due. May not hold a lab.
"""
