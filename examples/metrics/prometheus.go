package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/apns"
)

// attemptMetrics measures the attempts of any number of Clients.
//
// No label has the number of the connection, the topic or the push type: a Client opens
// any number of connections, and each value of a label makes another time series.
type attemptMetrics struct {
	latency     *prometheus.HistogramVec
	notAccepted *prometheus.CounterVec
}

// newAttemptMetrics returns metrics that are registered with r.
func newAttemptMetrics(r prometheus.Registerer) *attemptMetrics {
	m := &attemptMetrics{
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apns_attempt_duration_seconds",
			Help: "Time from giving a message to a connection to the outcome of the attempt. On the binary protocol an accepted message waits for the next barrier.",
			// HTTP/2 responds within milliseconds, the binary protocol within the
			// Client's ConfirmInterval. A Client waits for one minute unless it has
			// another Timeout.
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 75},
		}, []string{"protocol", "outcome"}),
		// A counter of its own, because with this label the histogram would have all its
		// buckets for each reason.
		notAccepted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apns_attempts_not_accepted_total",
			Help: "Attempts that were not accepted. The message may have been resent.",
		}, []string{"protocol", "outcome", "reason"}),
	}
	r.MustRegister(m.latency, m.notAccepted)
	return m
}

// observe is for Client.OnAttempt.
func (m *attemptMetrics) observe(_ context.Context, a apns.Attempt) {
	protocol, outcome := a.Protocol, a.Outcome()
	m.latency.WithLabelValues(protocol, outcome).Observe(a.Latency.Seconds())
	if a.Err != nil {
		m.notAccepted.WithLabelValues(protocol, outcome, a.Reason()).Inc()
	}
}

// A statsCollector reads the Stats of a Client each time the metrics are gathered. It
// counts messages, where attemptMetrics counts attempts: messages that never reached a
// connection are only here. To register the collectors of several Clients, give each
// prometheus.WrapRegistererWith and a label.
type statsCollector struct{ client *apns.Client }

var (
	messagesDesc    = prometheus.NewDesc("apns_messages_total", "Messages by outcome. The reason is set for rejected ones.", []string{"outcome", "reason"}, nil)
	inFlightDesc    = prometheus.NewDesc("apns_messages_in_flight", "Messages that are written and have no answer so far.", nil, nil)
	waitingDesc     = prometheus.NewDesc("apns_messages_waiting", "Messages that wait to be written.", nil, nil)
	resentDesc      = prometheus.NewDesc("apns_messages_resent_total", "Times that a message was written once more.", nil, nil)
	connectionsDesc = prometheus.NewDesc("apns_connections_opened_total", "Connections opened.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c statsCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{messagesDesc, inFlightDesc, waitingDesc, resentDesc, connectionsDesc} {
		descs <- d
	}
}

// Collect implements prometheus.Collector. All values are of one moment.
func (c statsCollector) Collect(metrics chan<- prometheus.Metric) {
	s := c.client.Stats()
	add := func(d *prometheus.Desc, t prometheus.ValueType, n uint64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, t, float64(n), labels...)
	}
	add(messagesDesc, prometheus.CounterValue, s.Accepted, "accepted", "")
	for reason, n := range s.Rejected { // which has a bounded number of reasons
		add(messagesDesc, prometheus.CounterValue, n, "rejected", reason)
	}
	add(messagesDesc, prometheus.CounterValue, s.NotSent, "not_sent", "")
	add(messagesDesc, prometheus.CounterValue, s.InDoubt, "in_doubt", "")
	add(messagesDesc, prometheus.CounterValue, s.Invalid, "invalid", "")
	add(messagesDesc, prometheus.CounterValue, s.Expired, "expired", "")
	add(inFlightDesc, prometheus.GaugeValue, s.InFlight)
	add(waitingDesc, prometheus.GaugeValue, s.Waiting)
	add(resentDesc, prometheus.CounterValue, s.Resent)
	add(connectionsDesc, prometheus.CounterValue, s.Connected)
}
