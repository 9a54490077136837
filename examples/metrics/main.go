// Command metrics shows how to observe a Client with Prometheus and OpenTelemetry. It
// starts apnstest's server in the process and pushes messages to it, some of which are
// rejected, resent or not answered. It prints a line for each attempt's span. It then
// serves the metrics on -addr until it is interrupted or, with -print, prints them once.
//
// This is a module of its own, so that package apns has no requirements.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"example.com/apns"
	"example.com/apns/apnstest"
)

const messages = 120

func main() {
	printOnce := flag.Bool("print", false, "print the metrics once, instead of serving them")
	addr := flag.String("addr", "localhost:2112", "the `host:port` to serve the metrics on, under /metrics")
	flag.Parse()
	if err := run(*printOnce, *addr); err != nil {
		log.Fatal("metrics: ", err)
	}
}

func run(printOnce bool, addr string) error {
	ctx := context.Background()
	server := apnstest.NewServer(handler())
	defer server.Close()

	registry := prometheus.NewRegistry()
	metrics := newAttemptMetrics(registry)
	// OnAttempt must return quickly, so the spans are exported in batches by a goroutine.
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(printer{os.Stdout}))
	spans := attemptSpans{provider.Tracer("example.com/apns")}

	client := &apns.Client{
		Config:  server.TokenConfig(),
		Timeout: 3 * time.Second,
		OnAttempt: func(ctx context.Context, a apns.Attempt) {
			metrics.observe(ctx, a)
			spans.observe(ctx, a)
		},
	}
	defer client.Close()
	registry.MustRegister(statsCollector{client})

	failed := make(chan error, 1)
	if !printOnce {
		http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
		go func() { failed <- http.ListenAndServe(addr, nil) }()
	}
	for range client.PushAll(ctx, alerts) {
	}
	if err := provider.Shutdown(ctx); err != nil {
		return err
	}
	if !printOnce {
		fmt.Printf("The metrics are on http://%s/metrics\n", addr)
		return <-failed
	}
	return printMetrics(os.Stdout, registry)
}

// alerts yields the messages. Their tokens are numbers, counted from 0.
func alerts(yield func(*apns.Message) bool) {
	for i := range messages {
		m := &apns.Message{Token: fmt.Sprintf("%064d", i), PushType: apns.PushTypeAlert, Payload: apns.AlertPayload("Hello")}
		if !yield(m) {
			return
		}
	}
}

// handler returns what makes the server reject some messages, and leave others
// unprocessed or unanswered. The last digits of the token decide.
func handler() func(*apns.Message) error {
	var mu sync.Mutex
	seen := make(map[string]bool)
	return func(m *apns.Message) error {
		mu.Lock()
		defer mu.Unlock()
		first := !seen[m.Token]
		seen[m.Token] = true
		switch end := m.Token[len(m.Token)-2:]; {
		case end == "50":
			return apnstest.Fault{End: apnstest.EndSilence} // in doubt
		case end[1] == '1':
			return apns.ReasonBadDeviceToken // rejected
		case end[1] == '2' && first:
			return apnstest.Fault{End: apnstest.EndRefusedStream} // resent at once
		case end[1] == '3' && first:
			return apns.ReasonTooManyRequests // resent after a back-off
		}
		return nil
	}
}

func printMetrics(w io.Writer, g prometheus.Gatherer) error {
	families, err := g.Gather()
	if err != nil {
		return err
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return err
		}
	}
	return nil
}

// A printer exports spans as lines of text. It stands in for an OTLP exporter.
type printer struct{ w io.Writer }

// ExportSpans implements sdktrace.SpanExporter.
func (p printer) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	for _, s := range spans {
		_, err := fmt.Fprintf(p.w, "# span %s %s %v", s.Name(), s.StartTime().UTC().Format("15:04:05.000"), s.EndTime().Sub(s.StartTime()))
		for _, a := range s.Attributes() {
			if err == nil {
				_, err = fmt.Fprintf(p.w, " %s=%s", a.Key, a.Value.String())
			}
		}
		if err == nil {
			_, err = fmt.Fprintln(p.w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
func (p printer) Shutdown(context.Context) error { return nil }
