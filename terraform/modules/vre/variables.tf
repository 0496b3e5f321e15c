variable "chart" {
  description = "The vre chart: a folder or archive with its dependencies inside, or its name when `repository` is set."
  type        = string
}

variable "settings" {
  description = "What stands in dmsp.yaml, without `box`; the chart checks it against its schema."
  type        = any

  validation {
    condition     = !can(var.settings.box)
    error_message = "The settings have a section `box`, which is for the embedded VRE only."
  }

  validation {
    condition     = can(regex("^https?://", var.settings.identity.issuer)) && can(regex("^https?://", var.settings.lake.rucio_url))
    error_message = "The settings need identity.issuer and lake.rucio_url: a cluster has none of its own."
  }
}

variable "name" {
  description = "Name of the release."
  type        = string
  default     = "vre"
}

variable "namespace" {
  description = "Namespace of the release."
  type        = string
  default     = "vre"
}

variable "create_namespace" {
  description = "Whether Helm makes the namespace when it is not there."
  type        = bool
  default     = true
}

variable "repository" {
  description = "Address of the chart's repository; null when `chart` is a folder or archive."
  type        = string
  default     = null
}

variable "chart_version" {
  description = "Version of the chart; null for the newest, or when `chart` is a folder or archive."
  type        = string
  default     = null
}

variable "values" {
  description = "Further values as YAML texts, such as those of JupyterHub. Not for secrets: they are kept in the state."
  type        = list(string)
  default     = []
}

variable "atomic" {
  description = "Whether a failed upgrade is rolled back and a failed installation removed."
  type        = bool
  default     = true
}

variable "wait" {
  description = "Whether to wait until everything is ready."
  type        = bool
  default     = true
}

variable "timeout" {
  description = "Seconds to wait for each Kubernetes operation."
  type        = number
  default     = 600

  validation {
    condition     = var.timeout > 0
    error_message = "The timeout must be positive."
  }
}
