package api

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"tandem/sidecar/status"
)

// descriptions says what each route answers; a test compares it with the
// routes.
var descriptions = map[string]struct {
	summary string
	answer  any // a value of the type of the answer; nil: not JSON
	query   map[string]string
}{
	"GET /{$}":             {summary: "The status page."},
	"GET /page/{file}":     {summary: "A part of the status page."},
	"GET /livez":           {summary: "200 unless the process should be restarted.", answer: status.Result{}},
	"GET /readyz":          {summary: "200 when this node takes part, 503 while it starts or cannot tell.", answer: status.Result{}},
	"GET /holder":          {summary: "200 on the node that holds the group's virtual IP, 503 elsewhere.", answer: Holder{}, query: map[string]string{"group": "The group; without it the only one, or the one named default."}},
	"GET /metrics":         {summary: "Metrics in Prometheus text format."},
	"GET /v1/openapi.json": {summary: "This document.", answer: map[string]any{}},
	"GET /v1/access":       {summary: "What the caller may do.", answer: map[string]any{}},
	"GET /v1/status":       {summary: "The whole picture as this node sees it.", answer: status.Status{}},
	"GET /v1/history":      {summary: "Transitions, oldest first.", answer: History{}, query: map[string]string{"limit": "Only so many, the latest."}},
	"GET /v1/plan":         {summary: "What would happen if something failed, rehearsed by the code that decides.", answer: status.Plan{}, query: map[string]string{"if": "Faults, comma-separated, for example lb1=down,site.a=down."}},
	"GET /v1/events":       {summary: "Server-sent events: transition for each, and status at the start, after each transition and every second. With Last-Event-ID, what was missed comes first.", query: map[string]string{"only": "transition: leave the status out."}},
	"POST /v1/takeover":    {summary: "Make a site active; without a site this node's own.", answer: status.Result{}},
	"POST /v1/renounce":    {summary: "Give a site up to the next usable one.", answer: status.Result{}},
	"POST /v1/move":        {summary: "Planned move of a virtual IP.", answer: status.Result{}},
	"POST /v1/pause":       {summary: "No automatic decision for a time, or until resume.", answer: status.Result{}},
	"POST /v1/resume":      {summary: "Automatic decisions again.", answer: status.Result{}},
	"POST /v1/maintenance": {summary: "A node that must not hold anything, or may again.", answer: status.Result{}},
	"POST /v1/ack":         {summary: "Automatic switches again, after too many in a short time had stopped them.", answer: status.Result{}},
	"POST /v1/restart":     {summary: "Replace the program of the node that is asked by the one in its file, in place. The answer comes before; status.process tells the outcome.", answer: status.Result{}},
}

// fields says what the fields of a command mean.
var fields = map[string]map[string]any{
	"site":     {"type": "string", "description": "Name of a site."},
	"group":    {"type": "string", "description": "Name of a group; default when left out."},
	"to":       {"type": "string", "description": "Node that shall hold the virtual IP."},
	"node":     {"type": "string", "description": "Name of a node; the one asked when left out."},
	"on":       {"type": "boolean", "description": "Maintenance on or off."},
	"force":    {"type": "boolean", "description": "Also when the target is not usable."},
	"begin":    {"type": "boolean", "description": "Answer as soon as it has begun, and not at its end; /v1/events tells the rest."},
	"duration": {"type": "string", "description": "For example 10m; until resume when left out."},
}

func (s *Server) openapi(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, s.document())
}

// document describes the API in OpenAPI 3.1, from the routes and types that
// serve it.
func (s *Server) document() map[string]any {
	schemas := map[string]any{}
	paths := map[string]any{}
	for _, r := range s.table() {
		method, path, _ := strings.Cut(r.pattern, " ")
		path = strings.TrimSuffix(path, "{$}")
		paths[path] = map[string]any{strings.ToLower(method): operation(r, path, schemas)}
	}
	schemaOf(reflect.TypeFor[Problem](), schemas)
	schemaOf(reflect.TypeFor[status.Event](), schemas)
	return map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title":       "tandem",
			"version":     "1",
			"description": "Over TCP, reading needs a token unless the API listens on loopback only, and operating needs the operate token. Over the control socket neither is needed.",
		},
		"paths": paths,
		"components": map[string]any{
			"schemas":         schemas,
			"securitySchemes": map[string]any{"token": map[string]any{"type": "http", "scheme": "bearer"}},
		},
	}
}

func operation(r route, path string, schemas map[string]any) map[string]any {
	about := descriptions[r.pattern]
	ok := map[string]any{"description": "As asked."}
	if about.answer != nil {
		ok["content"] = jsonContent(schemaOf(reflect.TypeOf(about.answer), schemas))
	}
	refused := map[string]any{"description": "Refused, with the reason.", "content": jsonContent(map[string]any{"$ref": "#/components/schemas/Problem"})}
	op := map[string]any{
		"summary":     about.summary,
		"operationId": strings.Trim(strings.NewReplacer("/", "_", ".", "_", "{", "", "}", "").Replace(r.pattern[strings.Index(r.pattern, "/"):]), "_$"),
		"responses":   map[string]any{"200": ok, "4XX": refused, "503": refused},
	}
	if op["operationId"] == "" {
		op["operationId"] = "page"
	}
	if r.need > levelOpen {
		op["security"] = []any{map[string]any{"token": []any{}}}
		op["description"] = fmt.Sprintf("Needs a token that may %s.", r.need)
	}
	var parameters []any
	for name, meaning := range about.query {
		parameters = append(parameters, map[string]any{"name": name, "in": "query", "description": meaning, "schema": map[string]any{"type": "string"}})
	}
	if strings.Contains(path, "{file}") {
		parameters = append(parameters, map[string]any{"name": "file", "in": "path", "required": true, "schema": map[string]any{"type": "string"}})
	}
	if parameters != nil {
		op["parameters"] = parameters
	}
	if kind, is := strings.CutPrefix(r.pattern, "POST /v1/"); is {
		op["requestBody"] = map[string]any{"required": kind == "move" || kind == "maintenance", "content": jsonContent(bodySchema(kind))}
	}
	return op
}

func bodySchema(kind string) map[string]any {
	properties := map[string]any{}
	for _, name := range commands[kind] {
		properties[name] = fields[name]
	}
	return map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
}

func jsonContent(schema map[string]any) map[string]any {
	return map[string]any{"application/json": map[string]any{"schema": schema}}
}

// schemaOf describes a type as encoding/json writes it; named structs go into
// schemas once.
func schemaOf(t reflect.Type, schemas map[string]any) map[string]any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t.Kind() == reflect.Pointer:
		return map[string]any{"anyOf": []any{schemaOf(t.Elem(), schemas), map[string]any{"type": "null"}}}
	case t.Kind() == reflect.Slice:
		return map[string]any{"type": []any{"array", "null"}, "items": schemaOf(t.Elem(), schemas)}
	case t.Kind() == reflect.String:
		return map[string]any{"type": "string"}
	case t.Kind() == reflect.Bool:
		return map[string]any{"type": "boolean"}
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return map[string]any{"type": "integer"}
	case t.Kind() != reflect.Struct:
		return map[string]any{"type": "object"}
	}
	if _, known := schemas[t.Name()]; !known {
		schemas[t.Name()] = nil // ends the recursion of a type that contains itself
		schemas[t.Name()] = structSchema(t, schemas)
	}
	return map[string]any{"$ref": "#/components/schemas/" + t.Name()}
}

func structSchema(t reflect.Type, schemas map[string]any) map[string]any {
	properties, required := map[string]any{}, []string{}
	for f := range t.Fields() {
		if f.Anonymous {
			inner := structSchema(f.Type, schemas)
			maps.Copy(properties, inner["properties"].(map[string]any))
			required = append(required, inner["required"].([]string)...)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		properties[name] = schemaOf(f.Type, schemas)
		if !strings.Contains(options, "omitempty") {
			required = append(required, name)
		}
	}
	slices.Sort(required)
	return map[string]any{"type": "object", "properties": properties, "required": required}
}
