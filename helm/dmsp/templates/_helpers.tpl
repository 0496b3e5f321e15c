{{- define "dmsp.labels" -}}
app.kubernetes.io/name: dmsp
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "dmsp-%s" .Chart.Version }}
{{- end }}

{{- /* Settings that may be empty on one machine, where the box brings its own services, and not in a cluster. */}}
{{- define "dmsp.check" -}}
{{- if not (.Values.dmsp.identity | default dict).issuer }}
{{- fail "dmsp.identity.issuer is empty: name the OIDC issuer, a cluster has none of its own." }}
{{- end }}
{{- if not (.Values.dmsp.lake | default dict).rucio_url }}
{{- fail "dmsp.lake.rucio_url is empty: name the Rucio server, a cluster has none of its own." }}
{{- end }}
{{- end }}
