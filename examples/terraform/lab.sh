#!/usr/bin/env bash
# A lab by hand, without the flows: the two Terraform roots in the order of terraform/README.md.
#
#   ./lab.sh repository      once an account and region: the repository of the gateway's images
#   ./lab.sh plan|up|down    one lab, as lab.tfvars says
#
# It needs AWS credentials, AWS_REGION, the bucket of the states, and the environment of `make venv`.
# BUCKET names another bucket than the one of the flows.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
  printf '%s\nWhat to do: %s\n' "$@" >&2
  exit 2
}

action=${1:-}
[[ $action =~ ^(repository|plan|up|down)$ ]] || fail "No such action: '$action'" "$0 repository|plan|up|down"
[ -n "${AWS_REGION:-}" ] || fail "AWS_REGION is not set" "export AWS_REGION=us-east-1, or where your models are"
: "${BUCKET:=gateway-lab-$(aws sts get-caller-identity --query Account --output text)-$AWS_REGION}"

# in_root ROOT ARGUMENT...: Terraform in that root, with its working files in this folder.
in_root() {
  TF_DATA_DIR="$PWD/.terraform/$1" terraform -chdir="../../terraform/$1" "${@:2}"
}

# connect ROOT KEY: give the root its state in the bucket.
connect() {
  in_root "$1" init -input=false -reconfigure -lockfile=readonly \
    -backend-config="$1.s3.tfbackend.example" \
    -backend-config="bucket=$BUCKET" -backend-config="key=$2" -backend-config="region=$AWS_REGION"
}

if [ "$action" = repository ]; then
  connect foundation foundation/terraform.tfstate
  in_root foundation apply
  exit
fi

[ -f lab.tfvars ] || fail "lab.tfvars is missing" "cp ../../terraform/lab/lab.example.tfvars lab.tfvars, and put your values into it"
lab=$(sed -n 's/^lab *= *"\(.*\)".*/\1/p' lab.tfvars)
connect lab "labs/$lab/terraform.tfstate"

# Terraform keeps no private key, so each command hands over a new certificate. Only an up writes it,
# and callers of the lab then trust ca.pem.
ca_file=/dev/null
[ "$action" != up ] || ca_file=ca.pem
eval "$(../../.venv/bin/python certificate.py "$lab" "$ca_file")"
variables=("-var-file=$PWD/lab.tfvars" "-var=tls_version=$TLS_VERSION")

case $action in
  plan) in_root lab plan "${variables[@]}" ;;
  up) in_root lab apply "${variables[@]}" ;;
  down) in_root lab destroy "${variables[@]}" ;;
esac
