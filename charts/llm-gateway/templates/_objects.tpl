{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Objects that gateway and engines have alike. They take a dict: root, name, part (the arguments of llm-gateway.selector). */}}

{{/* A PodDisruptionBudget; also budget. */}}
{{- define "llm-gateway.pdb" }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "llm-gateway.labels" .part | nindent 4 }}
spec:
  maxUnavailable: {{ .budget.maxUnavailable }}
  # A pod that is broken may be evicted: it serves nobody, and would hold up the node's drain.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "llm-gateway.selector" .part | nindent 6 }}
{{- end }}

{{/* A ServiceMonitor; also port, monitor. */}}
{{- define "llm-gateway.serviceMonitor" }}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "llm-gateway.labels" .part | nindent 4 }}
    {{- with .monitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "llm-gateway.selector" .part | nindent 6 }}
  endpoints:
    - port: {{ .port }}
      interval: {{ .monitor.interval }}
{{- end }}

{{/* The rule that lets a pod look up names, wherever the cluster's DNS runs (on the node, for example). */}}
{{- define "llm-gateway.dnsEgress" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end -}}
