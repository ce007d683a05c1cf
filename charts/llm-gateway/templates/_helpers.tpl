{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* The chart's name, or what stands for it. */}}
{{- define "llm-gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Release and chart, where the release does not name the chart itself. */}}
{{- define "llm-gateway.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $both := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $both .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/*
The name of a further object: (list $ "suffix"). Names end at 52 characters, for those of a StatefulSet's pods and revisions
have more behind; where something is cut off, a hash keeps two names apart.
*/}}
{{- define "llm-gateway.child" -}}
{{- $suffix := last . -}}
{{- $fullname := include "llm-gateway.fullname" (first .) -}}
{{- $name := printf "%s-%s" $fullname $suffix -}}
{{- if gt (len $name) 52 -}}
{{- $name = printf "%s-%s-%s" (trunc (int (sub 42 (len $suffix))) $fullname | trimSuffix "-") (sha256sum $fullname | trunc 8) $suffix -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* What tells the pods of a part from all others, of this release and of any: (list $ component) or (list $ component model). */}}
{{- define "llm-gateway.selector" -}}
{{- $root := first . -}}
app.kubernetes.io/name: {{ include "llm-gateway.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- if gt (len .) 2 }}
llm-gateway/model: {{ last . }}
{{- end }}
{{- end -}}

{{/* All labels of an object: arguments as above. */}}
{{- define "llm-gateway.labels" -}}
{{- $root := first . -}}
{{ include "llm-gateway.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Labels of a part's pods: (list part podLabels). No versions: a new one of the chart would restart every engine, which takes
its model away for minutes.
*/}}
{{- define "llm-gateway.podLabels" -}}
{{- $part := first . -}}
{{ include "llm-gateway.selector" $part }}
{{- range list (first $part).Values.commonLabels (last .) }}
{{- with . }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* An image by its parts: (list image defaultTag). */}}
{{- define "llm-gateway.image" -}}
{{- $image := first . -}}
{{- with $image.registry -}}{{ . }}/{{- end -}}
{{- $image.repository -}}:{{- default (last .) $image.tag -}}
{{- with $image.digest -}}@{{ . }}{{- end -}}
{{- end -}}

{{/* The gateway's image, which the simulator and the test have too. */}}
{{- define "llm-gateway.ownImage" -}}
image: {{ include "llm-gateway.image" (list .Values.image .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{/* The ServiceAccount of all pods. */}}
{{- define "llm-gateway.serviceAccountName" -}}
{{- default (.Values.serviceAccount.create | ternary (include "llm-gateway.fullname" .) "default") .Values.serviceAccount.name -}}
{{- end -}}

{{/* What every pod has: nobody's token, no variables of other Services (VLLM_PORT=tcp://… breaks vLLM), restricted security. */}}
{{- define "llm-gateway.podBasics" -}}
serviceAccountName: {{ include "llm-gateway.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{/* What every container may: (list readOnlyRootFilesystem). */}}
{{- define "llm-gateway.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: {{ first . }}
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Where a pod may run: of a part's values. */}}
{{- define "llm-gateway.placement" -}}
{{- $fields := dict -}}
{{- range $field := list "priorityClassName" "nodeSelector" "tolerations" "affinity" "runtimeClassName" -}}
{{- with get $ $field -}}
{{- $_ := set $fields $field . -}}
{{- end -}}
{{- end -}}
{{- with $fields -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/*
How a rollout goes: of a part's values. Helm has merged the default's rollingUpdate into what the user says, and Kubernetes
takes none beside Recreate.
*/}}
{{- define "llm-gateway.strategy" -}}
{{- with .strategy -}}
strategy:
  {{- eq (.type | default "") "Recreate" | ternary (omit . "rollingUpdate") . | toYaml | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Two maps as one: (list base changes). Maps in them are merged too, all else is replaced, and null takes away. */}}
{{- define "llm-gateway.merged" -}}
{{- $merged := deepCopy (first .) -}}
{{- range $key, $change := last . -}}
{{- $old := get $merged $key -}}
{{- if kindIs "invalid" $change -}}
{{- $merged = omit $merged $key -}}
{{- else if kindIs "map" $change -}}
{{- /* Also where there is no map yet: a null in the change must not become a value. */ -}}
{{- $_ := set $merged $key (include "llm-gateway.merged" (list (kindIs "map" $old | ternary $old dict) $change) | fromYaml) -}}
{{- else -}}
{{- $_ := set $merged $key $change -}}
{{- end -}}
{{- end -}}
{{- toYaml $merged -}}
{{- end -}}

{{/* Milliseconds as seconds, rounded up. */}}
{{- define "llm-gateway.seconds" -}}
{{- div (add (int64 .) 999) 1000 -}}
{{- end -}}

{{/* How long a gateway's pod may take to end: all that its own drain may take, and a reserve. */}}
{{- define "llm-gateway.drainSeconds" -}}
{{- $settings := .Values.settings -}}
{{- add (include "llm-gateway.seconds" (add (int64 $settings.SERVER__DRAIN_DELAY_MS) (int64 $settings.SERVER__DRAIN_GRACE_MS))) 10 -}}
{{- end -}}

{{/* Whether an address is one that only the pod itself reaches: gives "true" or nothing. */}}
{{- define "llm-gateway.isLoopback" -}}
{{- if or (hasPrefix "127." .) (has . (list "localhost" "::1")) -}}true{{- end -}}
{{- end -}}

{{/* The name of the Secret, or nothing where no keys are given. */}}
{{- define "llm-gateway.secretName" -}}
{{- with .Values.secrets -}}
{{- if .existingSecret -}}
{{- .existingSecret -}}
{{- else if or .values .externalSecret.enabled -}}
{{- include "llm-gateway.fullname" $ -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The variables that the Secret has, as far as the values tell: a list. */}}
{{- define "llm-gateway.secretKeys" -}}
{{- $keys := concat (.Values.secrets.keys | default list) (keys (.Values.secrets.values | default dict)) -}}
{{- if .Values.secrets.externalSecret.enabled -}}
{{- range .Values.secrets.externalSecret.data -}}
{{- $keys = append $keys .secretKey -}}
{{- end -}}
{{- end -}}
{{- $keys | uniq | sortAlpha | toYaml -}}
{{- end -}}

{{/* Where callers in the cluster find the gateway. */}}
{{- define "llm-gateway.address" -}}
{{- printf "%s.%s:%d" (include "llm-gateway.fullname" .) .Release.Namespace (int .Values.settings.PORT) -}}
{{- end -}}
