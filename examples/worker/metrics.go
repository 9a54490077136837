package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"example.com/apns"
)

// The metrics of a worker. What they count is said in write.
type metrics struct {
	taken, redelivered, rejected, extended atomic.Uint64
	resolved                               [apns.ActionDecide + 1]atomic.Uint64
	refused                                atomic.Bool
	attempts                               attempts
}

// attempts has the attempts of a Client: how many by outcome, and how long they took. A
// message that was resent has several.
type attempts struct {
	mu      sync.Mutex // protects what follows
	outcome map[string]uint64
	within  [len(latencies)]uint64 // attempts that took so long at most
	took    time.Duration          // all together
}

// latencies are the bounds of the histogram.
var latencies = [...]time.Duration{10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second, 30 * time.Second}

// observe is for Client.OnAttempt.
func (a *attempts) observe(_ context.Context, attempt apns.Attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.outcome == nil {
		a.outcome = make(map[string]uint64)
	}
	a.outcome[attempt.Outcome()]++ // one of four
	a.took += attempt.Latency
	for i, l := range latencies {
		if attempt.Latency <= l {
			a.within[i]++
		}
	}
}

// write writes a counter and a histogram.
func (a *attempts) write(out io.Writer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	family(out, "apns_attempts_total", "counter", "Attempts to send a message, by outcome.")
	all := uint64(0)
	for _, o := range []string{"accepted", "rejected", "not_sent", "in_doubt"} {
		fmt.Fprintf(out, "apns_attempts_total{outcome=%q} %d\n", o, a.outcome[o])
		all += a.outcome[o]
	}
	const name = "apns_attempt_seconds"
	family(out, name, "histogram", "Time from giving a message to a connection to the outcome of the attempt.")
	for i, l := range latencies {
		fmt.Fprintf(out, "%s_bucket{le=\"%g\"} %d\n", name, l.Seconds(), a.within[i])
	}
	fmt.Fprintf(out, "%s_bucket{le=\"+Inf\"} %d\n%s_sum %g\n%s_count %d\n", name, all, name, a.took.Seconds(), name, all)
}

// family writes what stands before the values of a metric.
func family(out io.Writer, name, kind, help string) {
	fmt.Fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// write writes the metrics in the text format of Prometheus.
func (w *worker) write(out io.Writer) {
	one := func(name, kind, help string, n uint64) {
		family(out, name, kind, help)
		fmt.Fprintf(out, "%s %d\n", name, n)
	}
	m := w.metrics
	one("worker_taken_total", "counter", "Messages taken from the queue.", m.taken.Load())
	one("worker_redelivered_total", "counter", "Messages taken that were delivered before.", m.redelivered.Load())
	one("worker_rejected_total", "counter", "Messages given up, with the reason on "+subjectRejected+".", m.rejected.Load())
	one("worker_extended_total", "counter", "Times that AckWait began again for a message.", m.extended.Load())
	one("worker_held", "gauge", "Messages taken whose acknowledgement is not confirmed.", uint64(w.holding()))
	one("worker_acks_unconfirmed", "gauge", "Acknowledgements that are not confirmed.", uint64(w.acks.waiting()))
	refused := uint64(0)
	if m.refused.Load() {
		refused = 1
	}
	one("worker_refused", "gauge", "1 while nothing can be sent until credentials or settings are corrected. Alert on it.", refused)
	family(out, "worker_resolved_total", "counter", "Messages with an outcome, by what was to be done.")
	for a := range m.resolved {
		fmt.Fprintf(out, "worker_resolved_total{action=%q} %d\n", apns.Action(a), m.resolved[a].Load())
	}
	if c, ok := w.client.(*apns.Client); ok {
		s := c.Stats()
		one("apns_in_flight", "gauge", "Messages that are written and have no answer so far.", s.InFlight)
		one("apns_waiting", "gauge", "Messages that wait to be written.", s.Waiting)
		one("apns_resent_total", "counter", "Times that a message was written once more.", s.Resent)
		one("apns_connections_total", "counter", "Connections opened.", s.Connected)
		family(out, "apns_rejected_total", "counter", "Messages that APNs rejected, by reason.")
		for reason, n := range s.Rejected { // which has a bounded number of reasons
			fmt.Fprintf(out, "apns_rejected_total{reason=%q} %d\n", reason, n)
		}
	}
	m.attempts.write(out)
}

// handler serves /metrics; /healthz, which fails if the worker is stuck; and /readyz, which
// fails while the queue is out of reach or the worker drains.
func (w *worker) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(out http.ResponseWriter, _ *http.Request) {
		out.Header().Set("Content-Type", "text/plain; version=0.0.4")
		w.write(out)
	})
	mux.HandleFunc("GET /healthz", func(out http.ResponseWriter, _ *http.Request) {
		if w.isStuck() {
			http.Error(out, "stuck: the loop that fetches from the queue has not run for "+stuckAfter.String(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(out, "ok")
	})
	mux.HandleFunc("GET /readyz", func(out http.ResponseWriter, _ *http.Request) {
		switch {
		case w.draining.Load():
			http.Error(out, "draining", http.StatusServiceUnavailable)
		case !w.queue.nc.IsConnected():
			http.Error(out, "not connected to NATS", http.StatusServiceUnavailable)
		default:
			fmt.Fprintln(out, "ok")
		}
	})
	return mux
}
