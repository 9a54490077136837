package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/token"
)

// The client of sideshow/apns2 runs the scenarios of apnstest.
func TestScenarios(t *testing.T) {
	dial := apns2.DialTLS
	defer func() { apns2.DialTLS = dial }()
	for _, scenario := range apnstest.Scenarios() {
		t.Run(scenario.Name, func(t *testing.T) {
			server := scenario.NewServer()
			server.Start()
			defer server.Close()
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(server.Certificates().CA)
			apns2.DialTLS = func(network, addr string, config *tls.Config) (net.Conn, error) {
				config.RootCAs = roots
				return dial(network, addr, config)
			}
			key, err := token.AuthKeyFromBytes(server.Certificates().AuthKey)
			if err != nil {
				t.Fatal(err)
			}
			client := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: apnstest.KeyID, TeamID: apnstest.TeamID})
			client.Host = "https://" + server.HTTP2Addr
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err = scenario.Run(ctx, server, func(ctx context.Context, m *apns.Message) error { return push(ctx, client, m) })
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// push pushes a message, and reports the outcome as Scenario.Run wants it.
func push(ctx context.Context, client *apns2.Client, m *apns.Message) error {
	res, err := client.PushWithContext(ctx, &apns2.Notification{
		DeviceToken: m.Token,
		Topic:       m.Topic,
		PushType:    apns2.EPushType(m.PushType),
		Payload:     m.Payload,
	})
	switch {
	case err != nil:
		return err
	case res.Sent():
		return nil
	}
	e := &apns.PushError{HTTPStatus: res.StatusCode, Reason: apns.Reason(res.Reason)}
	if res.StatusCode == 410 {
		e.DeadAt = res.Timestamp.Time
	}
	return e
}
