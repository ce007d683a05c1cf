{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/*
What values say that cannot be, or would not work, a line each: where, and what to do. What a single value may be is in
values.schema.json; here is what several say together. A fault that the gateway would find itself is here only where its
pods would then fail one after the other.
*/}}
{{- define "llm-gateway.faults" -}}
{{- include "llm-gateway.faultsOfModels" . -}}
{{- include "llm-gateway.faultsOfSettings" . -}}
{{- include "llm-gateway.faultsOfSecrets" . -}}
{{- include "llm-gateway.faultsOfGateway" . -}}
{{- range $key, $model := .Values.models -}}
{{- include "llm-gateway.faultsOfModel" (list $ $key $model) -}}
{{- end -}}
{{- end -}}

{{/* All that callers may ask for, in order, with repetitions. */}}
{{- define "llm-gateway.names" -}}
{{- $names := list -}}
{{- range $key, $model := .Values.models -}}
{{- $names = concat (append $names (include "llm-gateway.modelName" (list $ $key))) ($model.aliases | default list) -}}
{{- $engine := include "llm-gateway.engine" (list $ $key) | fromYaml -}}
{{- if eq $engine.kind "vllm" -}}
{{- range $engine.values.loraAdapters -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $names -}}
{{- end -}}

{{- define "llm-gateway.faultsOfModels" -}}
{{- if not .Values.models }}
models: there is none. Add one, for example --set models.qwen.vllm.model=Qwen/Qwen3-0.6B
{{- else }}
{{- $names := include "llm-gateway.names" . | fromYamlArray }}
{{- $known := list }}
{{- range $names }}
{{- if has . $known }}
models: {{ . }} is there twice among names, aliases and LoRA adapters; callers could not tell the two apart
{{- end }}
{{- $known = append $known . }}
{{- end }}
{{- with .Values.settings.DEFAULT_MODEL }}
{{- if not (has . $names) }}
settings.DEFAULT_MODEL: {{ . }} is not among the models, which are {{ join ", " $names }}
{{- end }}
{{- end }}
{{- with .Values.test.model }}
{{- if not (has . $names) }}
test.model: {{ . }} is not among the models, which are {{ join ", " $names }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "llm-gateway.faultsOfSettings" -}}
{{- $settings := .Values.settings }}
{{- $taken := dict }}
{{- range $setting := list "PORT" "ADMIN__PORT" "METRICS__PORT" }}
{{- if or (eq $setting "PORT") (get $settings (replace "PORT" "ENABLED" $setting)) }}
{{- $port := get $settings $setting | int | toString }}
{{- if eq $port "0" }}
settings.{{ $setting }}: must not be 0; nobody could be told which port was free
{{- else if hasKey $taken $port }}
settings.{{ $setting }}: is {{ $port }}, as {{ get $taken $port }} is; each needs a port of its own
{{- end }}
{{- $_ := set $taken $port $setting }}
{{- end }}
{{- end }}
{{- if include "llm-gateway.isLoopback" $settings.SERVER__HOST }}
settings.SERVER__HOST: {{ $settings.SERVER__HOST }} is reached by nobody outside the pod; leave it at 0.0.0.0
{{- end }}
{{- end -}}

{{- define "llm-gateway.faultsOfSecrets" -}}
{{- $secrets := .Values.secrets }}
{{- $external := $secrets.externalSecret }}
{{- $sources := list }}
{{- range $source, $given := dict "existingSecret" $secrets.existingSecret "values" $secrets.values "externalSecret" $external.enabled }}
{{- if $given }}
{{- $sources = append $sources $source }}
{{- end }}
{{- end }}
{{- if gt (len $sources) 1 }}
secrets: {{ join " and " $sources }} cannot go together; the keys are in one Secret
{{- end }}
{{- if and $secrets.existingSecret (not $secrets.keys) }}
secrets.keys: list the variables that the Secret {{ $secrets.existingSecret }} has, for example [VLLM_API_KEY]; Helm cannot look
{{- end }}
{{- if and $secrets.keys (not $secrets.existingSecret) (not $external.enabled) }}
secrets.keys: only tells what existingSecret or externalSecret brings, and neither is set
{{- end }}
{{- if $external.enabled }}
{{- if not $external.storeRef.name }}
secrets.externalSecret.storeRef.name: is empty; name the store that has the keys
{{- end }}
{{- if not (or $external.data $external.dataFrom) }}
secrets.externalSecret: has neither data nor dataFrom; say which keys it brings
{{- end }}
{{- if and $external.dataFrom (not $secrets.keys) }}
secrets.keys: list the variables that externalSecret.dataFrom brings, for example [VLLM_API_KEY]; Helm cannot look
{{- end }}
{{- end }}
{{- range include "llm-gateway.secretKeys" . | fromYamlArray }}
{{- if not (regexMatch "^[A-Za-z_][A-Za-z0-9_]*$" .) }}
secrets: {{ . }} is not the name of a variable
{{- end }}
{{- end }}
{{- end -}}

{{- define "llm-gateway.faultsOfGateway" -}}
{{- $gateway := .Values.gateway }}
{{- $scaling := $gateway.autoscaling }}
{{- if $scaling.enabled }}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
gateway.autoscaling: minReplicas is {{ $scaling.minReplicas }}, which is more than maxReplicas, {{ $scaling.maxReplicas }}
{{- end }}
{{- if not (or $scaling.targetCPUUtilizationPercentage $scaling.metrics) }}
gateway.autoscaling: has neither targetCPUUtilizationPercentage nor metrics; nothing would tell it when to scale
{{- end }}
{{- end }}
{{- if $gateway.serviceMonitor.enabled }}
{{- if not .Values.settings.METRICS__ENABLED }}
gateway.serviceMonitor: there are no metrics to read; set settings.METRICS__ENABLED
{{- else if include "llm-gateway.isLoopback" .Values.settings.METRICS__HOST }}
gateway.serviceMonitor: Prometheus does not reach settings.METRICS__HOST {{ .Values.settings.METRICS__HOST }}; leave it at 0.0.0.0
{{- end }}
{{- end }}
{{- if and $gateway.grpcRoute.enabled (not $gateway.grpcRoute.parentRefs) }}
gateway.grpcRoute.parentRefs: is empty; name the Gateway that is to route
{{- end }}
{{- range $gateway.extraEnv }}
{{- if or (hasKey $.Values.settings .name) (has .name (list "CONFIG_FILE" "VLLM_URL")) }}
gateway.extraEnv: {{ .name }} is the chart's own to set; {{ hasKey $.Values.settings .name | ternary "use settings" "describe the backend in models" }}
{{- end }}
{{- end }}
{{- include "llm-gateway.faultsOfImage" (list "image" .Values.image) }}
{{- range $place, $labels := dict "commonLabels" .Values.commonLabels "gateway.podLabels" $gateway.podLabels }}
{{- include "llm-gateway.faultsOfLabels" (list $place $labels) }}
{{- end }}
{{- end -}}

{{/* Of an image: (list place image). */}}
{{- define "llm-gateway.faultsOfImage" -}}
{{- $image := last . }}
{{- if and $image.digest (contains "@" ($image.tag | default "")) }}
{{ first . }}: tag has a digest already; leave digest empty
{{- end }}
{{- end -}}

{{/* Of further labels: (list place labels). */}}
{{- define "llm-gateway.faultsOfLabels" -}}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" "llm-gateway/model" }}
{{- range $label, $_ := last . }}
{{- if has $label $own }}
{{ first $ }}: {{ $label }} is the chart's own to set
{{- end }}
{{- end }}
{{- end -}}

{{/* Of a model: (list $ key model). */}}
{{- define "llm-gateway.faultsOfModel" -}}
{{- $root := index . 0 }}
{{- $key := index . 1 }}
{{- $model := index . 2 }}
{{- $place := printf "models.%s" $key }}
{{- if not (regexMatch "^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$" $key) }}
{{ $place }}: the key must be 1 to 30 lower case letters, digits and hyphens, for it names objects; what callers ask for is `name`
{{- end }}
{{- range list "vllm" "simulator" }}
{{- if and (hasKey $model .) (ne . ($model.engine | default "vllm")) }}
{{ $place }}.{{ . }}: has no effect, for the engine is {{ $model.engine | default "vllm" }}
{{- end }}
{{- end }}
{{- $engine := include "llm-gateway.engine" (list $root $key) | fromYaml }}
{{- $names := list }}
{{- $works := false }}
{{- if $engine.kind }}
{{- $names = append $names $engine.kind }}
{{- $works = ne 0 (hasKey $model "weight" | ternary $model.weight 1 | int) }}
{{- if lt (mul (int $engine.values.shutdown.preStopSeconds) 1000) (add (int64 $root.Values.settings.HEALTH__RESOLVE_INTERVAL_MS) 5000) }}
{{ $place }}: shutdown.preStopSeconds is {{ $engine.values.shutdown.preStopSeconds }}, but gateways may look up a pod's leaving only after settings.HEALTH__RESOLVE_INTERVAL_MS; make it 5 s longer than that
{{- end }}
{{- include "llm-gateway.faultsOfLabels" (list (printf "%s: podLabels" $place) $engine.values.podLabels) }}
{{- range list "--host" "--port" "--served-model-name" "--api-key" "--shutdown-timeout" }}
{{- $flag := . }}
{{- range $engine.values.args }}
{{- if or (eq . $flag) (hasPrefix (printf "%s=" $flag) .) }}
{{ $place }}: args must not have {{ $flag }}, which the chart sets {{ eq $flag "--api-key" | ternary "from secrets" "itself" }}
{{- end }}
{{- end }}
{{- end }}
{{- else if not $model.backends }}
{{ $place }}: has neither an engine nor backends; nobody would serve it
{{- end }}
{{- range $model.backends }}
{{- if has .name $names }}
{{ $place }}.backends: {{ .name }} is the name of two backends{{ if eq .name $engine.kind }}, of which one is the engine{{ end }}
{{- end }}
{{- $names = append $names .name }}
{{- $works = or $works (ne 0 (hasKey . "weight" | ternary .weight 1 | int)) }}
{{- with .api_key_env }}
{{- $given := include "llm-gateway.secretKeys" $root | fromYamlArray }}
{{- range $root.Values.gateway.extraEnv }}
{{- $given = append $given .name }}
{{- end }}
{{- if not (has . $given) }}
{{ $place }}.backends: {{ . }} is in no Secret; put it into `secrets`, or list it in secrets.keys where existingSecret has it
{{- end }}
{{- end }}
{{- end }}
{{- if and $names (not $works) }}
{{ $place }}: every backend has weight 0; one must take the calls
{{- end }}
{{- if eq $engine.kind "vllm" }}
{{- include "llm-gateway.faultsOfVllm" (list $place $engine) }}
{{- end }}
{{- end -}}

{{/* Of a vLLM: (list place engine). */}}
{{- define "llm-gateway.faultsOfVllm" -}}
{{- $place := first . }}
{{- $engine := last . }}
{{- $values := $engine.values }}
{{- $gpus := include "llm-gateway.gpus" $values | int }}
{{- $cache := $values.cache }}
{{- $most := $engine.scaled | ternary $values.keda.maxReplicas $values.replicas | int }}
{{- if not $values.model }}
{{ $place }}.vllm.model: is empty; name what it serves, for example Qwen/Qwen3-0.6B
{{- end }}
{{- if and $gpus (lt $gpus (int $values.tensorParallelSize)) }}
{{ $place }}: gpu.count is {{ $gpus }}, but tensorParallelSize wants {{ $values.tensorParallelSize }}
{{- end }}
{{- if $engine.scaled }}
{{- if not $values.keda.prometheusAddress }}
{{ $place }}: keda.prometheusAddress is empty; KEDA reads there how many requests wait
{{- end }}
{{- if not (or $values.keda.query $values.serviceMonitor.enabled) }}
{{ $place }}: keda asks by the labels that a ServiceMonitor gives; set serviceMonitor.enabled, or a keda.query of your own
{{- end }}
{{- if gt (int $values.keda.minReplicas) (int $values.keda.maxReplicas) }}
{{ $place }}: keda.minReplicas is {{ $values.keda.minReplicas }}, which is more than maxReplicas, {{ $values.keda.maxReplicas }}
{{- end }}
{{- end }}
{{- if and (eq $cache.type "existingClaim") (not $cache.existingClaim) }}
{{ $place }}: cache.existingClaim is empty; name the claim
{{- end }}
{{- if and (eq $cache.type "pvc") (eq $values.kind "Deployment") (gt $most 1) (not (has "ReadWriteMany" $cache.accessModes)) }}
{{ $place }}: {{ $most }} replicas of a Deployment share one volume, which {{ join ", " $cache.accessModes }} does not allow; use ReadWriteMany, or the kind StatefulSet
{{- end }}
{{- include "llm-gateway.faultsOfImage" (list (printf "%s: image" $place) $values.image) }}
{{- end -}}
