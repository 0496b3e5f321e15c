terraform {
  required_version = ">= 1.3"

  required_providers {
    helm = {
      source = "hashicorp/helm"
      # Only arguments that all of these versions share are used.
      version = ">= 1.3.2, < 4"
    }
  }
}
