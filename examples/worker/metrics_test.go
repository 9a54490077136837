package main

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
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
	r.worker.fetched.Store(time.Now().Add(-2 * stuckAfter).Unix())
	r.waitFor("/healthz is ok, since the worker takes messages", func() bool { code, _ := get("/healthz"); return code == 200 })
	r.drain()
	r.worker.fetched.Store(time.Now().Add(-2 * stuckAfter).Unix())
	if code, _ := get("/readyz"); code != 503 {
		t.Errorf("/readyz while draining: got %d, want 503", code)
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Errorf("/healthz while draining: got %d, want 200", code)
	}
}

// A worker that no longer asks for messages is stuck. One that waits for room is not.
func TestHealth(t *testing.T) {
	r := newRig(t, func(*apns.Message) error { return apnstest.Fault{} }, func(r *rig) { r.max, r.grace = 1, time.Millisecond })
	long := time.Now().Add(-2 * stuckAfter).Unix()
	if r.isStuck() {
		t.Error("it is stuck before it runs")
	}
	r.worker.fetched.Store(long)
	w := httptest.NewRecorder()
	r.handler().ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
	if w.Code != 503 {
		t.Errorf("/healthz: got %d, want 503", w.Code)
	}
	r.publish(demoMessage(1), demoMessage(2))
	r.start()
	r.waitFor("it has no room", func() bool { return r.holding() == 1 })
	for range 2 {
		r.worker.fetched.Store(long)
		r.waitFor("it waits for room, and is not stuck", func() bool { return !r.isStuck() })
	}
	r.drain()
}

// A NATS server that hangs is noticed.
func TestPings(t *testing.T) {
	nc, _, err := connect(startTestServer(t).ConnectedUrl(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if got, most := nc.Opts.PingInterval*time.Duration(nc.Opts.MaxPingsOut+1), 30*time.Second; got > most {
		t.Errorf("noticed after %v, want %v at most", got, most)
	}
}
