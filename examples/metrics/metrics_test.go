package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// An observed Client is one with both observers, and a list of its attempts.
type observed struct {
	*apns.Client
	registry *prometheus.Registry
	spans    *tracetest.SpanRecorder
	mu       sync.Mutex
	attempts []apns.Attempt
}

// observe has a Client observed. It is shut down at the end of the test.
func observe(t *testing.T, c *apns.Client) *observed {
	o := &observed{Client: c, registry: prometheus.NewRegistry(), spans: tracetest.NewSpanRecorder()}
	metrics := newAttemptMetrics(o.registry)
	spans := attemptSpans{sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(o.spans)).Tracer("test")}
	c.OnAttempt = func(ctx context.Context, a apns.Attempt) {
		metrics.observe(ctx, a)
		spans.observe(ctx, a)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.attempts = append(o.attempts, a)
	}
	o.registry.MustRegister(statsCollector{c})
	t.Cleanup(func() { c.Close() })
	return o
}

// memoryServer starts a server on a network in memory.
func memoryServer(t *testing.T, handler func(*apns.Message) error) *apnstest.Server {
	server := apnstest.NewUnstartedServer(handler)
	server.InMemory = true
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// gather returns the values of all counters and gauges, and the counts and sums of the
// histograms, by name and labels.
func gather(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() { // in the order of their names
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			set := func(suffix string, v float64) {
				values[f.GetName()+suffix+"{"+strings.Join(labels, ",")+"}"] = v
			}
			if h := m.GetHistogram(); h != nil {
				set("_count", float64(h.GetSampleCount()))
				set("_sum", h.GetSampleSum())
			} else {
				set("", m.GetCounter().GetValue()+m.GetGauge().GetValue()) // one of them is nil
			}
		}
	}
	return values
}

// wantStats returns what the collector has to export for s.
func wantStats(s apns.Stats) map[string]float64 {
	want := map[string]float64{
		"apns_messages_total{outcome=accepted,reason=}": float64(s.Accepted),
		"apns_messages_total{outcome=not_sent,reason=}": float64(s.NotSent),
		"apns_messages_total{outcome=in_doubt,reason=}": float64(s.InDoubt),
		"apns_messages_total{outcome=invalid,reason=}":  float64(s.Invalid),
		"apns_messages_total{outcome=expired,reason=}":  float64(s.Expired),
		"apns_messages_in_flight{}":                     float64(s.InFlight),
		"apns_messages_waiting{}":                       float64(s.Waiting),
		"apns_messages_resent_total{}":                  float64(s.Resent),
		"apns_connections_opened_total{}":               float64(s.Connected),
	}
	for reason, n := range s.Rejected {
		want["apns_messages_total{outcome=rejected,reason="+reason+"}"] = float64(n)
	}
	return want
}

// checkStats compares what the collector exports with want.
func checkStats(t *testing.T, values map[string]float64, s apns.Stats) {
	t.Helper()
	got := maps.Clone(values)
	maps.DeleteFunc(got, func(name string, _ float64) bool { return strings.HasPrefix(name, "apns_attempt") })
	if want := wantStats(s); !maps.Equal(got, want) {
		t.Errorf("the collector exports\n%v, want\n%v", got, want)
	}
}

// checkAttempts compares the histogram, the counter and the spans with the attempts.
func (o *observed) checkAttempts(t *testing.T, values map[string]float64) {
	t.Helper()
	counts, latencies := make(map[string]float64), make(map[string]float64)
	var wantSpans []string
	for _, a := range o.attempts {
		labels := fmt.Sprintf("{outcome=%s,protocol=%s}", a.Outcome(), a.Protocol)
		counts["apns_attempt_duration_seconds_count"+labels]++
		latencies["apns_attempt_duration_seconds_sum"+labels] += a.Latency.Seconds()
		span := fmt.Sprintf("apns.attempt from %v to %v: apns.attempt=%d apns.connection=%d apns.final=%t apns.outcome=%s apns.protocol=%s",
			a.Sent.UnixNano(), a.Sent.Add(a.Latency).UnixNano(), a.Number, a.Conn, a.Final, a.Outcome(), a.Protocol)
		if a.PushType != "" {
			span += " apns.push_type=" + string(a.PushType)
		}
		if a.Err != nil {
			counts[fmt.Sprintf("apns_attempts_not_accepted_total{outcome=%s,protocol=%s,reason=%s}", a.Outcome(), a.Protocol, a.Reason())]++
			span += " apns.reason=" + a.Reason()
		}
		wantSpans = append(wantSpans, span)
	}
	gotCounts := maps.Clone(values)
	maps.DeleteFunc(gotCounts, func(name string, _ float64) bool {
		return !strings.HasPrefix(name, "apns_attempt") || strings.Contains(name, "_sum{")
	})
	if !maps.Equal(gotCounts, counts) {
		t.Errorf("the counts of attempts are\n%v, want\n%v", gotCounts, counts)
	}
	for name, want := range latencies {
		if got := values[name]; max(got-want, want-got) > 1e-9*max(1, want) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}

	var gotSpans []string
	for _, s := range o.spans.Ended() {
		var attributes []string
		for _, a := range s.Attributes() {
			attributes = append(attributes, string(a.Key)+"="+a.Value.String())
		}
		slices.Sort(attributes)
		gotSpans = append(gotSpans, fmt.Sprintf("%s from %v to %v: %s", s.Name(), s.StartTime().UnixNano(), s.EndTime().UnixNano(), strings.Join(attributes, " ")))
	}
	slices.Sort(gotSpans)
	slices.Sort(wantSpans)
	if !slices.Equal(gotSpans, wantSpans) {
		t.Errorf("the spans are\n%s\nwant\n%s", strings.Join(gotSpans, "\n"), strings.Join(wantSpans, "\n"))
	}
}

// count returns how many attempts had the outcome. An empty one stands for any.
func (o *observed) count(of string) (n uint64) {
	for _, a := range o.attempts {
		if of == "" || a.Outcome() == of {
			n++
		}
	}
	return n
}

// Over HTTP/2 the attempts are those that gave a message its outcome, and those after
// which it was resent. This is the scenario of the program.
func TestHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := memoryServer(t, handler())
		o := observe(t, &apns.Client{Config: server.TokenConfig(), Timeout: 10 * time.Second})
		for range o.PushAll(t.Context(), alerts) {
		}
		values, stats := gather(t, o.registry), o.Stats()
		checkStats(t, values, stats)
		o.checkAttempts(t, values)

		want := apns.Stats{Accepted: 107, Rejected: map[string]uint64{"BadDeviceToken": 12}, InDoubt: 1, Resent: 24, Connected: 1}
		if !reflect.DeepEqual(stats, want) {
			t.Errorf("Stats are %+v, want %+v", stats, want)
		}
		if got, want := o.count(""), messages+stats.Resent; got != want {
			t.Errorf("there were %d attempts, want %d: one for each message, and one for each time that a message was resent", got, want)
		}
		for name, want := range map[string]float64{
			"apns_attempt_duration_seconds_count{outcome=accepted,protocol=h2}":                    107,
			"apns_attempt_duration_seconds_count{outcome=rejected,protocol=h2}":                    24,
			"apns_attempts_not_accepted_total{outcome=rejected,protocol=h2,reason=BadDeviceToken}": 12,
			// These are no outcomes of messages, which were resent and accepted.
			"apns_attempts_not_accepted_total{outcome=rejected,protocol=h2,reason=TooManyRequests}": 12,
			"apns_attempt_duration_seconds_count{outcome=not_sent,protocol=h2}":                     12,
			"apns_attempts_not_accepted_total{outcome=in_doubt,protocol=h2,reason=timeout}":         1,
		} {
			if values[name] != want {
				t.Errorf("%s is %v, want %v", name, values[name], want)
			}
		}
	})
}

// On the binary protocol the messages after a rejected one are resent, which does not
// count as an attempt.
func TestBinary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := memoryServer(t, func(m *apns.Message) error {
			if strings.HasSuffix(m.Token, "01") {
				return apns.StatusInvalidToken
			}
			return nil
		})
		o := observe(t, &apns.Client{Addr: "gateway.push.apple.com:2195", Config: server.Config()})
		for range o.PushAll(t.Context(), alerts) {
		}
		values, stats := gather(t, o.registry), o.Stats()
		checkStats(t, values, stats)
		o.checkAttempts(t, values)
		if stats.Accepted != 118 || stats.Rejected["BadDeviceToken"] != 2 {
			t.Errorf("Stats are %+v, want 118 accepted, and 2 with a BadDeviceToken", stats)
		}
		if got := values["apns_attempts_not_accepted_total{outcome=rejected,protocol=binary,reason=BadDeviceToken}"]; got != 2 {
			t.Errorf("%v attempts were rejected with BadDeviceToken, want 2", got)
		}
		if got := o.count(""); got != messages || stats.Resent == 0 {
			t.Errorf("there were %d attempts and %d messages were resent, want %d, and more than 0", got, stats.Resent, messages)
		}
	})
}

// While messages are in flight or wait, they are in the gauges alone. A message that is
// never written has an outcome without an attempt.
func TestInFlightAndWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := memoryServer(t, func(*apns.Message) error { return apnstest.Fault{End: apnstest.EndSilence} })
		o := observe(t, &apns.Client{Config: server.Config(), MaxInFlight: 3})
		ctx, cancel := context.WithCancel(t.Context())
		var pushes sync.WaitGroup
		for m := range alerts {
			pushes.Go(func() { o.Push(ctx, m) })
		}
		synctest.Wait()
		values := gather(t, o.registry)
		checkStats(t, values, apns.Stats{InFlight: 3, Waiting: messages - 3, Connected: 1})
		o.checkAttempts(t, values)

		time.Sleep(time.Second)
		cancel()
		pushes.Wait()
		values = gather(t, o.registry)
		stats := o.Stats()
		checkStats(t, values, stats)
		o.checkAttempts(t, values)
		if stats.InDoubt == 0 || stats.InDoubt != o.count("in_doubt") || stats.InDoubt+stats.NotSent != messages || stats.InFlight+stats.Waiting != 0 {
			t.Errorf("after %d attempts in doubt Stats are %+v", o.count("in_doubt"), stats)
		}
		if got := o.attempts[0].Latency; got < time.Second {
			t.Errorf("the latency of the first attempt is %v, want at least the second that it was in flight", got)
		}
	})
}

// The labels are bounded, and nothing exported has the text of an error, not even of one that
// quotes a device token.
func TestLabels(t *testing.T) {
	const token = "00c0ffee"
	for _, test := range []struct {
		err             error
		outcome, reason string
	}{
		{nil, "accepted", ""},
		{&apns.PushError{HTTPStatus: 410, Reason: apns.ReasonUnregistered}, "rejected", "Unregistered"},
		{&apns.PushError{HTTPStatus: 400, Reason: token}, "rejected", "other"},
		{&apns.PushError{HTTPStatus: 404}, "rejected", "HTTP status 404"},
		{&apns.PushError{HTTPStatus: 503, Reason: "Service Unavailable"}, "rejected", "ServiceUnavailable"},
		{&apns.PushError{Status: apns.StatusInvalidToken}, "rejected", "BadDeviceToken"},
		{&apns.PushError{Status: apns.StatusProtocolError}, "rejected", "protocol error"},
		{fmt.Errorf("%w: %w", apns.ErrNotSent, apns.ReasonShutdown), "not_sent", "Shutdown"},
		{fmt.Errorf("%w: stream refused", apns.ErrNotSent), "not_sent", "other"},
		{fmt.Errorf("%w: %w", apns.ErrInDoubt, context.DeadlineExceeded), "in_doubt", "timeout"},
		{fmt.Errorf("%w: %w", apns.ErrInDoubt, context.Canceled), "in_doubt", "cancelled"},
		{fmt.Errorf("%w: %w", apns.ErrInDoubt, net.ErrClosed), "in_doubt", "closed"},
		{fmt.Errorf("%w: the body begins with %q", apns.ErrInDoubt, "POST /3/device/"+token), "in_doubt", "other"},
		{fmt.Errorf("%w: %w", apns.ErrInDoubt, errors.New(token)), "in_doubt", "other"},
	} {
		attempt := apns.Attempt{Protocol: "h2", Conn: 1, Number: 1, Sent: time.Now(), Topic: apnstest.BundleID, Err: test.err}
		if o, r := attempt.Outcome(), attempt.Reason(); o != test.outcome || r != test.reason {
			t.Errorf("%v: outcome is %q and reason %q, want %q and %q", test.err, o, r, test.outcome, test.reason)
		}
		o := observe(t, &apns.Client{})
		o.OnAttempt(t.Context(), attempt)
		o.checkAttempts(t, gather(t, o.registry))
		for _, s := range tracetest.SpanStubsFromReadOnlySpans(o.spans.Ended()) {
			if strings.Contains(fmt.Sprintf("%+v", s), token) {
				t.Errorf("the span has the token: %+v", s)
			}
		}
	}
}
