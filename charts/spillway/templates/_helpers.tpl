{{- define "spillway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "spillway.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "spillway.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "spillway.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "spillway.selectorLabels" -}}
app.kubernetes.io/name: {{ include "spillway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "spillway.labels" -}}
{{ include "spillway.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: spillway
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The image of (dict "registry" … "image" … "version" appVersion). */}}
{{- define "spillway.image" -}}
{{- $name := .image.repository -}}
{{- with .registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- if .image.digest -}}
{{ $name }}@{{ .image.digest }}
{{- else -}}
{{ $name }}:{{ default .version .image.tag }}
{{- end -}}
{{- end }}

{{- define "spillway.operatorImage" -}}
{{- include "spillway.image" (dict "registry" .Values.imageRegistry "image" .Values.operator.image "version" .Chart.AppVersion) }}
{{- end }}

{{- define "spillway.proxyImage" -}}
{{- include "spillway.image" (dict "registry" .Values.imageRegistry "image" .Values.proxy.image "version" .Chart.AppVersion) }}
{{- end }}

{{- define "spillway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "spillway.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Namespaces of pools, comma-separated, the release's own when none is named. */}}
{{- define "spillway.poolNamespaces" -}}
{{- default (list .Release.Namespace) .Values.poolNamespaces | uniq | join "," }}
{{- end }}

{{- define "spillway.defaultPoolNamespace" -}}
{{- first (default (list .Release.Namespace) .Values.poolNamespaces) }}
{{- end }}

{{- define "spillway.postgresqlName" -}}
{{ include "spillway.fullname" . }}-postgresql
{{- end }}

{{/* Name and key of the Secret with the database's URL. */}}
{{- define "spillway.databaseSecret" -}}
{{- if .Values.postgresql.enabled }}
{{- if .Values.database.urlSecretRef.name }}
{{- fail "postgresql.enabled and database.urlSecretRef.name are both set: keep the one that you mean" }}
{{- end -}}
name: {{ include "spillway.postgresqlName" . }}
key: url
{{- else -}}
name: {{ required "database.urlSecretRef.name is empty: name a Secret with the URL of your PostgreSQL, or set postgresql.enabled=true to try Spillway out" .Values.database.urlSecretRef.name }}
key: {{ .Values.database.urlSecretRef.key }}
{{- end }}
{{- end }}

{{/* What the restricted Pod Security Standard asks of a pod; the user is the images' own. */}}
{{- define "spillway.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "spillway.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
