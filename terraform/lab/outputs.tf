output "cluster_name" {
  description = "Name of the ECS cluster."
  value       = aws_ecs_cluster.this.name
}

output "service_name" {
  description = "Name of the ECS service."
  value       = aws_ecs_service.this.name
}

output "task_definition_arn" {
  description = "ARN of the newest task definition revision; the service may still run an older one."
  value       = aws_ecs_task_definition.this.arn
}

output "container_name" {
  description = "Name of the gateway's container in the task."
  value       = local.container_name
}

output "security_group_id" {
  description = "ID of the security group that lists who may reach the gateway."
  value       = aws_security_group.gateway.id
}

output "log_group_name" {
  description = "Name of the CloudWatch log group of the gateway."
  value       = aws_cloudwatch_log_group.this.name
}

output "secret_arn" {
  description = "ARN of the secret that holds the gateway's key."
  value       = aws_secretsmanager_secret.this.arn
}

output "secret_name" {
  description = "Name of the secret that holds the gateway's key."
  value       = aws_secretsmanager_secret.this.name
}

output "tls_name" {
  description = "Name in the gateway's certificate, which callers must ask for."
  value       = local.gateway_environment.GATEWAY_TLS_NAME
}

output "vpc_id" {
  description = "ID of the lab's VPC."
  value       = aws_vpc.this.id
}

output "subnet_ids" {
  description = "IDs of the public subnets that tasks run in."
  value       = aws_subnet.public[*].id
}

output "task_role_arn" {
  description = "ARN of the role that the gateway calls Bedrock with."
  value       = aws_iam_role.task.arn
}

output "execution_role_arn" {
  description = "ARN of the role that ECS starts the task with."
  value       = aws_iam_role.execution.arn
}

output "gateway_port" {
  description = "Port that the gateway listens on."
  value       = var.gateway_port
}

output "schedule_group_name" {
  description = "Name of the schedule group that holds the lab's end."
  value       = aws_scheduler_schedule_group.this.name
}

output "schedule_name" {
  description = "Name of the schedule that stops the service after the lab's end."
  value       = aws_scheduler_schedule.stop.name
}

output "state_machine_arn" {
  description = "ARN of the state machine that the schedule starts."
  value       = aws_sfn_state_machine.stop.arn
}
