# The lab's end in the cloud itself: some time after the lab should be gone, a schedule sets its
# service to zero tasks. This works even if the machine that should destroy the lab is gone.

locals {
  # Made from names, not from resources, so that all of this exists before the service does.
  service_arn        = "arn:${local.partition}:ecs:${local.region}:${local.account}:service/${local.name}/${local.name}"
  stop_arn           = "arn:${local.partition}:states:${local.region}:${local.account}:stateMachine:${local.name}-stop"
  schedule_group_arn = "arn:${local.partition}:scheduler:${local.region}:${local.account}:schedule-group/${local.name}"

  # ECS's errors after the lab was destroyed, as Step Functions spells them.
  service_gone = [
    "Ecs.ClusterNotFoundException",
    "Ecs.ServiceNotActiveException",
    "Ecs.ServiceNotFoundException",
  ]
}

# Used by the schedule.
resource "aws_iam_role" "scheduler" {
  name                 = "${local.name}-scheduler"
  description          = "Lets the schedule of lab ${var.lab} start its stop"
  tags                 = local.role_tags
  permissions_boundary = local.role_boundary

  # Scheduler assumes roles in the name of a group: it refuses a condition on a single schedule.
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "scheduler.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnLike      = { "aws:SourceArn" = local.schedule_group_arn }
      }
    }]
  })
}

resource "aws_iam_role_policy" "scheduler" {
  name = "start-stop"
  role = aws_iam_role.scheduler.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["states:StartExecution"]
      Resource = [local.stop_arn]
    }]
  })
}

# Used by the state machine.
resource "aws_iam_role" "stop" {
  name                 = "${local.name}-stop"
  description          = "Lets the end of lab ${var.lab} stop its service"
  tags                 = local.role_tags
  permissions_boundary = local.role_boundary

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "states.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnLike      = { "aws:SourceArn" = local.stop_arn }
      }
    }]
  })
}

resource "aws_iam_role_policy" "stop" {
  name = "stop-service"
  role = aws_iam_role.stop.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["ecs:UpdateService"]
      Resource = [local.service_arn]
    }]
  })
}

# A schedule could call ECS itself, but not on every endpoint that has schedules, and it would treat
# a service that is already gone as a failure.
resource "aws_sfn_state_machine" "stop" {
  # checkov:skip=CKV_AWS_284: one call of one service has nothing to trace
  # checkov:skip=CKV_AWS_285: Step Functions keeps the history of its one execution for 90 days
  name     = "${local.name}-stop"
  type     = "STANDARD"
  role_arn = aws_iam_role.stop.arn

  definition = jsonencode({
    Comment = "Takes the gateway of lab ${var.lab} to zero tasks"
    StartAt = "StopService"
    States = {
      StopService = {
        Type     = "Task"
        Resource = "arn:${local.partition}:states:::aws-sdk:ecs:updateService"

        # Zero counts for every deployment of the service, also for one that is under way.
        Parameters = {
          Cluster      = local.name
          Service      = local.name
          DesiredCount = 0
        }

        TimeoutSeconds = 60

        Retry = [
          {
            ErrorEquals = local.service_gone
            MaxAttempts = 0
          },
          # There may be nobody to try again: every error is retried, for more than an hour.
          {
            ErrorEquals     = ["States.ALL"]
            IntervalSeconds = 5
            BackoffRate     = 2
            MaxDelaySeconds = 300
            MaxAttempts     = 20
          },
        ]

        Catch = [{
          ErrorEquals = local.service_gone
          Next        = "AlreadyGone"
        }]

        End = true
      }

      AlreadyGone = { Type = "Succeed" }
    }
  })
}

# Schedules cannot carry tags, only their groups.
resource "aws_scheduler_schedule_group" "this" {
  name = local.name
}

resource "aws_scheduler_schedule" "stop" {
  # checkov:skip=CKV_AWS_297: it holds the lab's name and end, no secret; a key is billed by the month
  name        = "stop"
  group_name  = aws_scheduler_schedule_group.this.name
  description = "Takes the gateway of lab ${var.lab} to zero tasks, should the lab outlive its end"

  # Scheduler wants the time without its zone.
  schedule_expression = format("at(%s)", formatdate(
    "YYYY-MM-DD'T'hh:mm:ss", timeadd(var.expires_at, "${var.stop_grace_minutes}m")
  ))
  schedule_expression_timezone = "UTC"
  state                        = "ENABLED"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_sfn_state_machine.stop.arn
    role_arn = aws_iam_role.scheduler.arn
    input    = jsonencode({ lab = var.lab })

    # The longest that Scheduler goes on: a day.
    retry_policy {
      maximum_event_age_in_seconds = 86400
      maximum_retry_attempts       = 185
    }
  }

  # A schedule without its rights is useless.
  depends_on = [
    aws_iam_role_policy.scheduler,
    aws_iam_role_policy.stop,
  ]
}
