# Public subnets and public addresses: a NAT gateway or the interface endpoints that private
# subnets need would cost more than the task itself.
resource "aws_vpc" "this" {
  # checkov:skip=CKV2_AWS_11: flow logs are billed; only the hosts that the firewall names get in
  # DNS names for public addresses stay off: nothing uses them, and the provider waits ten seconds
  # for them.
  cidr_block         = "10.42.0.0/24"
  enable_dns_support = true

  tags = { Name = local.name }
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = local.name }
}

# Two zones, because Spot capacity runs out per zone.
resource "aws_subnet" "public" {
  count = 2

  vpc_id            = aws_vpc.this.id
  availability_zone = data.aws_availability_zones.this.names[count.index]
  cidr_block        = cidrsubnet(aws_vpc.this.cidr_block, 2, count.index)

  tags = { Name = "${local.name}-public-${count.index + 1}" }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${local.name}-public" }
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "public" {
  count = 2

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public.id
}

# AWS gives each VPC a default group that lets its members talk to each other and to anywhere.
# Adopting it without rules empties it.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${local.name}-default-unused" }
}

resource "aws_security_group" "gateway" {
  name        = local.name
  description = "Gateway of lab ${var.lab}"
  vpc_id      = aws_vpc.this.id

  tags = { Name = local.name }
}

resource "aws_vpc_security_group_ingress_rule" "gateway" {
  for_each = var.allowed_cidrs

  security_group_id = aws_security_group.gateway.id
  description       = "Gateway from one host"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = var.gateway_port
  to_port           = var.gateway_port
}

# Registry, secret, logs and Bedrock are all HTTPS. DNS and the task's credentials come from
# link-local addresses, which security groups do not filter.
resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.gateway.id
  description       = "AWS APIs"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}
