{{- define "granary.labels" -}}
app.kubernetes.io/name: granary
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "granary.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* [settings]: variables */}}
{{- define "granary.settings" -}}
{{- range $name, $value := . }}
- {name: GRANARY_{{ $name | upper }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{/* The store's keys, as the AWS tools take them. */}}
{{- define "granary.storeEnv" -}}
{{- range list "AWS_ENDPOINT_URL" "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" "AWS_REGION" }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $.Values.volume.secretName }}, key: {{ . }}, optional: true}}
{{- end }}
{{- end }}

{{- define "granary.metaUrl" -}}
{{- if eq .Values.meta.mode "service" -}}
http{{ if .Values.meta.tlsSecretName }}s{{ end }}://granary-meta.{{ .Release.Namespace }}.svc:{{ .Values.meta.port }}
{{- else if eq .Values.meta.mode "external" -}}
{{ required "meta.url: https://HOST:PORT of the metadata service" .Values.meta.url }}
{{- else if ne .Values.meta.mode "node" -}}
{{ fail (printf "meta.mode %q is not known: service, external or node" .Values.meta.mode) }}
{{- end -}}
{{- end }}

{{/* Whether each volume is mounted by a token of its own: "true" or nothing. */}}
{{- define "granary.delegate" -}}
{{- $asked := toString .Values.csi.delegate.enabled -}}
{{- if or (eq $asked "true") (and (eq $asked "") (eq .Values.meta.mode "service")) }}true{{ end -}}
{{- end }}

{{/* How the nodes' processes are renewed. */}}
{{- define "granary.strategy" -}}
{{- $strategy := .Values.node.updateStrategy | default (ternary "Surge" "OnDelete" .Values.keeper.enabled) -}}
{{- if not (has $strategy (list "Surge" "RollingUpdate" "OnDelete")) -}}
{{- fail (printf "node.updateStrategy %q is not known: Surge, RollingUpdate or OnDelete" $strategy) -}}
{{- else if and (eq $strategy "Surge") (not .Values.keeper.enabled) -}}
{{- fail "node.updateStrategy Surge needs keeper.enabled: without a keeper a node's mounts end with its process" -}}
{{- end -}}
{{- $strategy -}}
{{- end }}

{{/* Makes the volume if it is not there, for the key whose tokens count where a service checks them. */}}
{{- define "granary.init" -}}
- name: init
  image: {{ include "granary.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    - init
    - --if-missing
    - --meta=/var/lib/granary/meta
    - --store={{ .Values.volume.store }}
    {{- if eq .Values.meta.mode "service" }}
    - --key=/etc/granary-volume/trust
    {{- end }}
  env: {{- include "granary.storeEnv" . | nindent 4 }}
  securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
{{- end }}

{{- define "granary.pod" -}}
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where Pods of every node run. */}}
{{- define "granary.everywhere" -}}
{{- with .Values.node.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.node.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.node.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
priorityClassName: {{ .Values.node.priorityClassName }}
{{- end }}
