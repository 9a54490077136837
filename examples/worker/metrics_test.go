package main

import (
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
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
	if _, body := get("/metrics"); !strings.Contains(body, "\nworker_resolved_total{action=\"done\"} 1\n") || !strings.Contains(body, "\napns_attempts_total{outcome=\"accepted\"} 1\n") || strings.Contains(body, demoToken(1)) {
		t.Errorf("/metrics: got %s, want one message that is done, and no token", body)
	}
	_, body := get("/metrics")
	for line := range strings.Lines(body) {
		if f := strings.Fields(line); f[0] == "#" && f[1] == "TYPE" && !slices.Equal(f[3:], []string{"counter"}) && !slices.Equal(f[3:], []string{"gauge"}) && !slices.Equal(f[3:], []string{"histogram"}) {
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

// A worker that is cut off from NATS is not ready, until it is connected once more. It is
// alive all the same.
func TestReadyWithoutNATS(t *testing.T) {
	dir := t.TempDir()
	s, err := startServer("127.0.0.1", -1, dir)
	if err != nil {
		t.Fatal(err)
	}
	port := s.Addr().(*net.TCPAddr).Port
	nc, _, err := connect(s.ClientURL(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	r := newRigWith(t, nc, nil)
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		r.handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	if code, _ := get("/readyz"); code != 200 {
		t.Errorf("/readyz: got %d, want 200", code)
	}
	s.Shutdown()
	s.WaitForShutdown()
	r.waitFor("it is not connected", func() bool { return !nc.IsConnected() })
	if code, why := get("/readyz"); code != 503 || !strings.Contains(why, "NATS") {
		t.Errorf("/readyz without NATS: got %d, %q, want 503, and why", code, why)
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Errorf("/healthz without NATS: got %d, want 200", code)
	}
	if s, err = startServer("127.0.0.1", port, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	r.waitFor("it is ready once more", func() bool { code, _ := get("/readyz"); return code == 200 })
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

// The attempts of a Client are counted by outcome and by latency, those of the program's own
// Client too.
func TestAttempts(t *testing.T) {
	r := newRig(t, nil)
	key := filepath.Join(t.TempDir(), "key.p8")
	if err := os.WriteFile(key, r.server.Certificates().AuthKey, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := parse("", []string{"-nats=x", "-p8", key, "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID})
	if err != nil {
		t.Fatal(err)
	}
	client, err := s.client(r.metrics)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []apns.Attempt{
		{Latency: 10 * time.Millisecond},
		{Latency: 200 * time.Millisecond, Err: apns.ErrNotSent},
		{Latency: 200 * time.Millisecond},
		{Latency: time.Minute, Err: apns.ErrInDoubt},
		{Latency: 1500 * time.Millisecond, Err: &apns.PushError{HTTPStatus: 400, Reason: apns.ReasonBadDeviceToken}},
	} {
		client.OnAttempt(t.Context(), a)
	}
	var out strings.Builder
	r.write(&out)
	want := `# HELP apns_attempts_total Attempts to send a message, by outcome.
# TYPE apns_attempts_total counter
apns_attempts_total{outcome="accepted"} 2
apns_attempts_total{outcome="rejected"} 1
apns_attempts_total{outcome="not_sent"} 1
apns_attempts_total{outcome="in_doubt"} 1
# HELP apns_attempt_seconds Time from giving a message to a connection to the outcome of the attempt.
# TYPE apns_attempt_seconds histogram
apns_attempt_seconds_bucket{le="0.01"} 1
apns_attempt_seconds_bucket{le="0.03"} 1
apns_attempt_seconds_bucket{le="0.1"} 1
apns_attempt_seconds_bucket{le="0.3"} 3
apns_attempt_seconds_bucket{le="1"} 3
apns_attempt_seconds_bucket{le="3"} 4
apns_attempt_seconds_bucket{le="10"} 4
apns_attempt_seconds_bucket{le="30"} 4
apns_attempt_seconds_bucket{le="+Inf"} 5
apns_attempt_seconds_sum 61.91
apns_attempt_seconds_count 5
`
	if got := out.String(); !strings.HasSuffix(got, want) {
		t.Errorf("got\n%s\nwant at its end\n%s", got, want)
	}
}
