package main

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestEndpoints(t *testing.T) {
	r := newRig(t, nil)
	r.publish(demoMessage(1))
	r.start()
	r.waitUntilEmpty()
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		r.handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	if code, _ := get("/readyz"); code != 200 {
		t.Errorf("/readyz: got %d, want 200", code)
	}
	if _, body := get("/metrics"); !strings.Contains(body, "\nworker_resolved_total{action=\"done\"} 1\n") || strings.Contains(body, demoToken(1)) {
		t.Errorf("/metrics: got %s, want one message that is done, and no token", body)
	}
	_, body := get("/metrics")
	for line := range strings.Lines(body) {
		if f := strings.Fields(line); f[0] == "#" && f[1] == "TYPE" && !slices.Equal(f[3:], []string{"counter"}) && !slices.Equal(f[3:], []string{"gauge"}) {
			t.Errorf("/metrics: got %q, want a type that Prometheus has", line)
		}
	}
	r.drain()
	if code, _ := get("/readyz"); code != 503 {
		t.Errorf("/readyz while draining: got %d, want 503", code)
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Errorf("/healthz: got %d, want 200", code)
	}
}
