{{/*
Name of every object: the chart's, without the release's, as is usual in Phalanx. In the namespace prompt-redis the release
is called prompt-redis too, and would only repeat it.
*/}}
{{- define "prompt-redis-exporter.name" -}}
{{- .Values.fullnameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "prompt-redis-exporter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "prompt-redis-exporter.name" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/*
Labels that selectors use. They must not change, since Kubernetes refuses that. The component distinguishes two exporters of
one release.
*/}}
{{- define "prompt-redis-exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- if .Values.fullnameOverride }}
app.kubernetes.io/component: {{ include "prompt-redis-exporter.name" . }}
{{- end }}
{{- end }}

{{- define "prompt-redis-exporter.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "prompt-redis-exporter.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* One variable. It is left out if its value is empty, so that the exporter's own default applies. */}}
{{- define "prompt-redis-exporter.variable" -}}
{{- with index . 1 }}
- name: PROMPT_REDIS_EXPORTER_{{ index $ 0 }}
  value: {{ toString . | quote }}
{{- end }}
{{- end }}

{{/*
The exporter's options, as environment variables and not as arguments: a process that `kubectl exec` starts in the pod gets
the container's variables, but not its arguments. None is a secret, since they show in the pod's manifest: passwords are
files.
*/}}
{{- define "prompt-redis-exporter.env" -}}
{{- $auth := .Values.redis.auth }}
{{- $tls := .Values.redis.tls }}
{{- include "prompt-redis-exporter.variable" (list "REDIS_URL" (join "," .Values.redis.urls)) }}
{{- include "prompt-redis-exporter.variable" (list "REDIS_SENTINEL_MASTER" .Values.redis.sentinelMaster) }}
{{- include "prompt-redis-exporter.variable" (list "REDIS_CLUSTER" .Values.redis.cluster) }}
{{- include "prompt-redis-exporter.variable" (list "REDIS_TIMEOUT" .Values.redis.timeout) }}
{{- include "prompt-redis-exporter.variable" (list "REDIS_USERNAME" $auth.username) }}
{{- if $auth.usernameKey }}
- name: PROMPT_REDIS_EXPORTER_REDIS_USERNAME
  valueFrom:
    secretKeyRef:
      name: {{ $auth.secretName }}
      key: {{ $auth.usernameKey }}
{{- end }}
{{- if $auth.secretName }}
{{- include "prompt-redis-exporter.variable" (list "REDIS_PASSWORD_FILE" (printf "/etc/prompt-redis-exporter/auth/%s" $auth.passwordKey)) }}
{{- end }}
{{- if $tls.secretName }}
{{- range $name, $key := dict "CA" $tls.caKey "CERT" $tls.certKey "KEY" $tls.keyKey }}
{{- if $key }}
{{- include "prompt-redis-exporter.variable" (list (printf "REDIS_TLS_%s_FILE" $name) (printf "/etc/prompt-redis-exporter/tls/%s" $key)) }}
{{- end }}
{{- end }}
{{- end }}
{{- include "prompt-redis-exporter.variable" (list "STREAM" (join "," .Values.streams)) }}
- name: PROMPT_REDIS_EXPORTER_COLLECTOR_UNDELIVERED_MAX
  value: {{ int .Values.collector.undeliveredMax | quote }}
- name: PROMPT_REDIS_EXPORTER_COLLECTOR_UNDELIVERED_BUDGET
  value: {{ .Values.collector.undeliveredBudget | quote }}
- name: PROMPT_REDIS_EXPORTER_COLLECTOR_SERVER
  value: {{ .Values.collector.server | quote }}
- name: PROMPT_REDIS_EXPORTER_COLLECTOR_CONSUMERS
  value: {{ .Values.collector.consumers | quote }}
- name: PROMPT_REDIS_EXPORTER_COLLECTOR_CONSUMERS_MAX
  value: {{ int .Values.collector.consumersMax | quote }}
{{- include "prompt-redis-exporter.variable" (list "WEB_TELEMETRY_PATH" .Values.web.telemetryPath) }}
{{- if .Values.web.config.secretName }}
{{- include "prompt-redis-exporter.variable" (list "WEB_CONFIG_FILE" (printf "/etc/prompt-redis-exporter/web/%s" .Values.web.config.key)) }}
{{- end }}
{{- include "prompt-redis-exporter.variable" (list "LOG_LEVEL" .Values.log.level) }}
{{- include "prompt-redis-exporter.variable" (list "LOG_FORMAT" .Values.log.format) }}
{{- end }}

{{/*
A probe. With a web configuration it only opens a connection: the configuration may require a password or a client
certificate, and a probe has neither.
*/}}
{{- define "prompt-redis-exporter.probe" -}}
{{- $root := index . 0 }}
{{- if $root.Values.web.config.secretName -}}
tcpSocket:
  port: metrics
{{- else -}}
httpGet:
  path: {{ index . 1 }}
  port: metrics
{{- end }}
periodSeconds: 10
timeoutSeconds: 2
failureThreshold: 3
{{- end }}

{{/*
Values that contradict each other, which a schema cannot express. Without these checks the pod would not start, or would
start and do something else than intended.
*/}}
{{- define "prompt-redis-exporter.check" -}}
{{- $redis := .Values.redis }}
{{- range concat $redis.urls .Values.streams }}
{{- if contains "," . }}
{{- fail (printf "%s: no commas in a URL or a stream, the exporter would take it for two" .) }}
{{- end }}
{{- end }}
{{- range $redis.urls }}
{{- if regexMatch "^[a-z]+://[^/@]*:[^/@]*@" . }}
{{- fail "redis.urls: a URL holds a password. Put it in a Secret and name that in redis.auth.secretName" }}
{{- end }}
{{- if and $redis.tls.secretName (not (hasPrefix "rediss://" .)) }}
{{- fail (printf "redis.tls.secretName is set, but %s is not a TLS URL: write rediss://" .) }}
{{- end }}
{{- end }}
{{- if and (gt (len $redis.urls) 1) (not $redis.sentinelMaster) (not $redis.cluster) }}
{{- fail "redis.urls: several URLs need redis.sentinelMaster or redis.cluster" }}
{{- end }}
{{- if and $redis.sentinelMaster $redis.cluster }}
{{- fail "redis.sentinelMaster and redis.cluster: one or the other" }}
{{- end }}
{{- if and $redis.sentinelMaster .Values.networkPolicy.enabled (not .Values.networkPolicy.redisPorts) }}
{{- fail "redis.sentinelMaster: networkPolicy.redisPorts must name the port of the Redis servers, for instance [6379]; the URLs only have that of the Sentinels" }}
{{- end }}
{{- if and $redis.auth.username $redis.auth.usernameKey }}
{{- fail "redis.auth.username and redis.auth.usernameKey: one or the other" }}
{{- end }}
{{- if and $redis.auth.usernameKey (not $redis.auth.secretName) }}
{{- fail "redis.auth.usernameKey needs redis.auth.secretName" }}
{{- end }}
{{- if ne (empty $redis.tls.certKey) (empty $redis.tls.keyKey) }}
{{- fail "redis.tls.certKey and redis.tls.keyKey: both or neither" }}
{{- end }}
{{- if and (or $redis.tls.certKey $redis.tls.keyKey) (not $redis.tls.secretName) }}
{{- fail "redis.tls.certKey and redis.tls.keyKey need redis.tls.secretName" }}
{{- end }}
{{- $podMonitor := .Values.podMonitor }}
{{- if gt ($podMonitor.scrapeTimeout | trimSuffix "s" | int) ($podMonitor.interval | trimSuffix "s" | int) }}
{{- fail (printf "podMonitor.scrapeTimeout %s is longer than podMonitor.interval %s, which the Prometheus operator refuses" $podMonitor.scrapeTimeout $podMonitor.interval) }}
{{- end }}
{{- if and .Values.web.config.tls (not .Values.web.config.secretName) }}
{{- fail "web.config.tls needs web.config.secretName" }}
{{- end }}
{{- end }}

{{/* Files of alerts and recording rules, without .yaml. The recording rules cut nights, which only Prompt Processing has. */}}
{{- define "prompt-redis-exporter.ruleFiles" -}}
{{- if eq .Values.monitoringSet "redis-streams" }}
- redis-streams.alerts
{{- else }}
- prompt-redis.alerts
- prompt-redis.rules
{{- end }}
{{- end }}

{{/* Dashboards, without .json. */}}
{{- define "prompt-redis-exporter.dashboardFiles" -}}
{{- if eq .Values.monitoringSet "redis-streams" }}
- redis-streams
{{- else }}
- prompt-redis-observing
- prompt-redis-capacity
{{- end }}
{{- end }}

{{/* One of the repository's own files. Its braces belong to Prometheus and Grafana, so it must not be evaluated. */}}
{{- define "prompt-redis-exporter.file" -}}
{{- $text := .root.Files.Get .path }}
{{- if not (hasPrefix .start (regexReplaceAll "(?m)^#.*\n" $text "")) }}
{{- fail (printf "%s is not the expected file. The chart's files are links into the repository: take the packaged chart, or copy with the links followed (cp -rL)" .path) }}
{{- end }}
{{- $text }}
{{- end }}

{{/* Ports of Redis: those in the URLs, 6379 where a URL has none, and those added. */}}
{{- define "prompt-redis-exporter.redisPorts" -}}
{{- $ports := list }}
{{- range .Values.redis.urls }}
{{- $host := regexReplaceAll "^[a-z]+://([^/@]*@)?([^/?]*).*$" . "${2}" }}
{{- $ports = append $ports (regexFind ":[0-9]+$" $host | trimPrefix ":" | default "6379") }}
{{- end }}
{{- range .Values.networkPolicy.redisPorts }}
{{- $ports = append $ports (toString (int .)) }}
{{- end }}
{{- $ports | uniq | sortAlpha | join "," }}
{{- end }}
