{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/*
All that the templates need to know of a model's engine: (list $ key). Gives a map, with an empty kind where the chart runs
no engine:
  kind      vllm, simulator or nothing
  name      of its Deployment and its Service
  served    how the engine calls the model
  scaled    whether KEDA decides how many replicas there are
  values    of `vllm` or `simulator`, with the model's own changes
  replicas  how many there are, at least
  drain     the seconds that running streams have after SIGTERM
  grace     the seconds that a pod has to end, from the beginning of its preStop
*/}}
{{- define "llm-gateway.engine" -}}
{{- $root := first . -}}
{{- $key := last . -}}
{{- $model := get $root.Values.models $key | default dict -}}
{{- $kind := $model.engine | default "vllm" -}}
{{- if eq $kind "none" -}}
kind: ""
{{- else -}}
{{- $values := include "llm-gateway.merged" (list (get $root.Values $kind) (get $model $kind | default dict)) | fromYaml -}}
{{- $drain := int $values.shutdown.drainSeconds -}}
{{- if kindIs "invalid" $values.shutdown.drainSeconds -}}
{{- $drain = include "llm-gateway.seconds" $root.Values.settings.TIMEOUT_MS | int -}}
{{- end -}}
{{- $scaled := and (eq $kind "vllm") $values.keda.enabled -}}
{{- $replicas := $values.replicas -}}
{{- if $scaled -}}
{{- $replicas = $values.keda.minReplicas -}}
{{- end -}}
kind: {{ $kind }}
name: {{ include "llm-gateway.child" (list $root (printf "engine-%s" $key)) }}
served: {{ $values.servedModelName | default (include "llm-gateway.modelName" (list $root $key)) | quote }}
scaled: {{ $scaled }}
replicas: {{ int $replicas }}
drain: {{ $drain }}
grace: {{ add $values.shutdown.preStopSeconds $drain 10 }}
values:
  {{- toYaml $values | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* What callers ask for: (list $ key). */}}
{{- define "llm-gateway.modelName" -}}
{{- (get (first .).Values.models (last .) | default dict).name | default (last .) -}}
{{- end -}}

{{/* The gateway's CONFIG_FILE, from all models. */}}
{{- define "llm-gateway.modelsFile" -}}
{{- $entries := list -}}
{{- range $key, $model := .Values.models -}}
{{- $engine := include "llm-gateway.engine" (list $ $key) | fromYaml -}}
{{- $common := dict -}}
{{- range $field, $value := dict "balancing" $model.balancing "defaults" $model.defaults "max_in_flight" $model.maxInFlight "hedge_after_ms" $model.hedgeAfterMs -}}
{{- if $value -}}
{{- $_ := set $common $field $value -}}
{{- end -}}
{{- end -}}
{{- $backends := list -}}
{{- if $engine.kind -}}
{{- $backends = append $backends (include "llm-gateway.engineBackend" (list $ $model $engine $engine.served) | fromYaml) -}}
{{- end -}}
{{- $entry := dict "name" (include "llm-gateway.modelName" (list $ $key)) "backends" (concat $backends ($model.backends | default list)) -}}
{{- with $model.aliases -}}
{{- $_ := set $entry "aliases" . -}}
{{- end -}}
{{- $entries = append $entries (merge $entry $common) -}}
{{- if eq $engine.kind "vllm" -}}
{{- range $engine.values.loraAdapters -}}
{{- $backend := include "llm-gateway.engineBackend" (list $ $model $engine .name) | fromYaml -}}
{{- $entries = append $entries (merge (dict "name" .name "backends" (list $backend)) $common) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "models" $entries | toYaml -}}
{{- end -}}

{{/* The entry of an engine among a model's backends: (list $ model engine served). Each of its pods is a replica. */}}
{{- define "llm-gateway.engineBackend" -}}
{{- $root := index . 0 -}}
{{- $model := index . 1 -}}
{{- $engine := index . 2 -}}
name: {{ $engine.kind }}
dialect: vllm
url: dns+http://{{ $engine.name }}:8000
model: {{ last . | quote }}
weight: {{ hasKey $model "weight" | ternary $model.weight 1 | int }}
priority: {{ $model.priority | default 0 | int }}
{{- if has "VLLM_API_KEY" (include "llm-gateway.secretKeys" $root | fromYamlArray) }}
api_key_env: VLLM_API_KEY
{{- end }}
{{- $timeouts := dict -}}
{{- range $field, $value := $model.timeouts -}}
{{- $_ := set $timeouts (snakecase $field) $value -}}
{{- end -}}
{{- with $timeouts }}
timeouts:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The model that `helm test` asks. */}}
{{- define "llm-gateway.testModel" -}}
{{- .Values.test.model | default (include "llm-gateway.names" . | fromYamlArray | first) -}}
{{- end -}}
