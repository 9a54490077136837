package main

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"example.com/apns"
)

// The metrics of a worker. What they count is said in write.
type metrics struct {
	taken, redelivered, rejected, extended atomic.Uint64
	resolved                               [apns.ActionDecide + 1]atomic.Uint64
	refused                                atomic.Bool
}

// write writes the metrics in the text format of Prometheus.
func (w *worker) write(out io.Writer) {
	family := func(name, kind, help string) {
		fmt.Fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	one := func(name, kind, help string, n uint64) {
		family(name, kind, help)
		fmt.Fprintf(out, "%s %d\n", name, n)
	}
	m := &w.metrics
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
	family("worker_resolved_total", "counter", "Messages with an outcome, by what was to be done.")
	for a := range m.resolved {
		fmt.Fprintf(out, "worker_resolved_total{action=%q} %d\n", apns.Action(a), m.resolved[a].Load())
	}
	if c, ok := w.client.(*apns.Client); ok {
		s := c.Stats()
		one("apns_in_flight", "gauge", "Messages that are written and have no answer so far.", s.InFlight)
		one("apns_waiting", "gauge", "Messages that wait to be written.", s.Waiting)
		one("apns_resent_total", "counter", "Times that a message was written once more.", s.Resent)
		one("apns_connections_total", "counter", "Connections opened.", s.Connected)
		family("apns_rejected_total", "counter", "Messages that APNs rejected, by reason.")
		for reason, n := range s.Rejected { // which has a bounded number of reasons
			fmt.Fprintf(out, "apns_rejected_total{reason=%q} %d\n", reason, n)
		}
	}
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
			http.Error(out, "stuck: the queue was not asked for "+stuckAfter.String(), http.StatusServiceUnavailable)
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
