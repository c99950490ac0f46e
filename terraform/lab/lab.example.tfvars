lab        = "demo"
owner      = "someone@example.com"
expires_at = "2030-01-31T18:00:00Z"

# Your own public address: 203.0.113.7 is an example that nobody has.
allowed_cidrs = ["203.0.113.7/32"]

image          = "111122223333.dkr.ecr.us-east-1.amazonaws.com/gateway-lab:TAG"
repository_arn = "arn:aws:ecr:us-east-1:111122223333:repository/gateway-lab"

models = {
  "bedrock-nova-micro" = { model_id = "amazon.nova-micro-v1:0" }

  # A model that only answers through an inference profile: its destination regions come from
  # `aws bedrock get-inference-profile`.
  "bedrock-nova-lite" = {
    model_id             = "amazon.nova-lite-v1:0"
    inference_profile_id = "us.amazon.nova-lite-v1:0"
    regions              = ["us-east-1", "us-east-2", "us-west-2"]
  }
}

# Raise it with each new certificate, whose PEM comes in the environment, as TF_VAR_tls_pem.
tls_version = 1
