# The configuration of a VRE in the namespace `vre`, JupyterHub not yet switched on.
# Before the first use: helm dependency update helm/vre
terraform {
  required_version = ">= 1.3"

  required_providers {
    helm = {
      source  = "hashicorp/helm"
      version = ">= 1.3.2, < 4"
    }
  }
}

# Reads KUBE_CONFIG_PATH, or KUBECONFIG with versions 1.x.
provider "helm" {}

variable "issuer" {
  description = "OIDC issuer of the community."
  type        = string
}

variable "rucio_url" {
  description = "Rucio server of the lake."
  type        = string
}

module "vre" {
  source = "../../modules/vre"
  chart  = "${path.module}/../../../helm/vre"

  settings = {
    identity = { issuer = var.issuer }
    lake     = { rucio_url = var.rucio_url }
    experiments = [
      { name = "km3net", groups = ["/dmsp/km3net"], scopes = ["km3net"] },
    ]
  }
}

output "status" {
  description = "Status of the release."
  value       = module.vre.status
}
