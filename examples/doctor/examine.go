package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"example.com/apns"
)

// examine prints what it finds out about a server and the credentials for it. It reports
// whether it found no problem.
func examine(ctx context.Context, addr string, config *apns.Config) bool {
	var c chart
	if c.credentials(config); c.problems > 0 {
		return c.isHealthy()
	}
	plain := config.TLS.Clone()

	// The state of the connection is of interest even if the server then refuses it.
	var state atomic.Pointer[tls.ConnectionState]
	config.TLS.VerifyConnection = func(s tls.ConnectionState) error {
		state.Store(&s)
		return nil
	}
	client := &apns.Client{Addr: addr, Config: config, Attempts: 1}
	defer client.Close()
	began := time.Now()
	err := client.Connect(ctx)
	if s := state.Load(); s != nil {
		c.connection(addr, s, time.Since(began))
	}
	switch {
	case err != nil:
		c.problem("server", err)
	case *probing:
		_, err := client.Push(ctx, &apns.Message{Token: impossible, Payload: apns.AlertPayload("probe")})
		c.judge(err)
		if s := state.Load(); s.NegotiatedProtocol == "h2" {
			c.clock(ctx, addr, plain)
			return c.isHealthy()
		}
	default:
		c.line("unknown", "probe", "the server judges the credentials with the first push: -probe sends one")
	}
	c.line("unknown", "clock", "this machine's says %s", time.Now().UTC().Format(time.RFC3339))
	return c.isHealthy()
}

// credentials prints what the credentials are. Without a bundle ID, that of the certificate
// becomes the configuration's.
func (c *chart) credentials(config *apns.Config) {
	if config.Key != nil {
		c.line("ok", "credentials", "%v; the server knows its environments and topics", config.Key)
	}
	if len(config.TLS.Certificates) > 0 {
		info := apns.InspectCertificate(config.TLS.Certificates[0].Leaf)
		if config.BundleID == "" && len(info.Topics) > 0 {
			config.BundleID = info.Topics[0]
		}
		c.certificate(info)
	}
	if config.BundleID == "" {
		c.line("unknown", "topic", "there is no -bundle-id")
	} else {
		c.line("ok", "topic", "%s", config.BundleID)
	}
}

// certificate prints what a certificate says about itself. That it is for push notifications
// and valid today was checked when it was loaded.
func (c *chart) certificate(info apns.CertificateInfo) {
	environments := "an environment that it does not name"
	switch {
	case info.Sandbox && info.Production:
		environments = "sandbox and production"
	case info.Sandbox:
		environments = "the sandbox alone"
	case info.Production:
		environments = "production alone"
	}
	topics := strings.Join(info.Topics, ", ")
	if topics == "" {
		topics = "an app that it does not name"
	}
	days := int(time.Until(info.NotAfter).Hours() / 24)
	finding := "ok"
	if days < 30 {
		finding = "warning"
	}
	c.line(finding, "credentials", "certificate for %s; for %s; expires on %s, in %d days", topics, environments, info.NotAfter.UTC().Format(time.DateOnly), days)
	if server.Addr == "" && info.Sandbox != info.Production && info.Sandbox != server.Sandbox {
		c.problem("credentials", apns.ReasonBadCertificateEnvironment)
	}
}

// connection prints what the handshake has negotiated.
func (c *chart) connection(addr string, s *tls.ConnectionState, took time.Duration) {
	protocol := "the binary protocol (no ALPN)"
	if s.NegotiatedProtocol != "" {
		protocol = "HTTP/2 (ALPN " + s.NegotiatedProtocol + ")"
	}
	c.line("ok", "connection", "%s with %s and %s, after %v", addr, tls.VersionName(s.Version), protocol, took.Round(time.Millisecond))
	chain := s.PeerCertificates
	if len(s.VerifiedChains) > 0 {
		chain = s.VerifiedChains[0]
	}
	var names []string
	for _, cert := range chain {
		names = append(names, name(cert))
	}
	c.line("ok", "server", "certificate of %s, valid until %s", strings.Join(names, ", signed by "), chain[0].NotAfter.UTC().Format(time.DateOnly))
}

// name returns what a certificate calls its owner.
func name(cert *x509.Certificate) string {
	if cert.Subject.CommonName != "" {
		return fmt.Sprintf("%q", cert.Subject.CommonName)
	}
	return fmt.Sprintf("%q", cert.Subject.String())
}

// maxSkew is how wrong a clock may be without a remark. A provider token is valid for an hour
// by the server's clock.
const maxSkew = 5 * time.Minute

// clock compares this machine's clock with the Date of an answer of the server. Package apns
// does not show headers, so this is a request of its own.
func (c *chart) clock(ctx context.Context, addr string, config *tls.Config) {
	now := time.Now()
	date, err := serverDate(ctx, addr, config)
	skew := now.Sub(date).Round(time.Second)
	switch {
	case err != nil:
		c.line("unknown", "clock", "this machine's says %s, and the server does not tell its own", now.UTC().Format(time.RFC3339))
	case skew.Abs() > maxSkew:
		c.line("problem", "clock", "this machine's says %s, which is %v off the server's: set it", now.UTC().Format(time.RFC3339), skew)
	default:
		c.line("ok", "clock", "this machine's says %s, which is %v off the server's", now.UTC().Format(time.RFC3339), skew)
	}
}

// serverDate returns the time in an answer of the server.
func serverDate(ctx context.Context, addr string, config *tls.Config) (time.Time, error) {
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/", nil)
	if err != nil {
		return time.Time{}, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return time.Time{}, err
	}
	response.Body.Close()
	return http.ParseTime(response.Header.Get("Date"))
}
