# The provider is configured by the caller: a module with a provider block could not be used with count or for_each.
resource "helm_release" "vre" {
  name             = var.name
  namespace        = var.namespace
  create_namespace = var.create_namespace

  chart      = var.chart
  repository = var.repository
  version    = var.chart_version

  # Later values win, so that `values` can change what `settings` says.
  values = concat([yamlencode({ platform = { dmsp = var.settings } })], var.values)

  atomic  = var.atomic
  wait    = var.wait
  timeout = var.timeout
}
