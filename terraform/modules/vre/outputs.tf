output "name" {
  description = "Name of the release."
  value       = helm_release.vre.name
}

output "namespace" {
  description = "Namespace of the release."
  value       = helm_release.vre.namespace
}

output "chart_version" {
  description = "Version of the chart that is installed."
  value       = helm_release.vre.version
}

output "status" {
  description = "Status of the release, `deployed` when all is well."
  value       = helm_release.vre.status
}
