// Command push sends one notification and says what became of it.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

const usage = `Push sends one notification and says what became of it. The exit status is 0
if the server accepted it.

	push [flags] <device-token> <numeric-id> <alert-text>
	push [flags] <certificate-file> <key-file> <device-token> <numeric-id> <alert-text>

Without credentials, to a server of its own, which it starts for the purpose:

	go run ./examples/push -local c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00 1 "Hello"

To a gateway of the binary protocol (Apple closed its own in 2021):

	go run ./examples/push -addr gateway.example.com:2195 -cert cert.pem -key key.pem <device-token> 1 "Hello"

Flags:
`

func main() {
	err := run()
	if err == nil {
		_, err = fmt.Println("accepted")
	}
	switch {
	case err == nil:
		return
	case errors.Is(err, errUsage):
		os.Exit(2)
	case isRejection(err):
		fmt.Fprintln(os.Stderr, "rejected:", err)
	case errors.Is(err, apns.ErrInDoubt), errors.Is(err, apns.ErrNotSent):
		fmt.Fprintln(os.Stderr, err) // which begins with just that
	default:
		fmt.Fprintln(os.Stderr, "not sent:", err)
	}
	os.Exit(1)
}

var errUsage = errors.New("usage")

func isRejection(err error) bool {
	pushErr, ok := errors.AsType[*apns.PushError](err)
	return ok && pushErr.Rejected()
}

// run returns nil if the notification was accepted.
func run() error {
	addr := flag.String("addr", "gateway.sandbox.push.apple.com:2195", "the gateway's `host:port`")
	cert := flag.String("cert", "", "the provider certificate, a PEM `file`")
	key := flag.String("key", "", "its private key, a PEM `file`; if empty, that of -cert")
	ca := flag.String("ca", "", "the authority to trust instead of the system's, a PEM `file`")
	local := flag.Bool("local", false, "start a server in this process and push to it")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	args := flag.Args()
	if len(args) == 5 {
		*cert, *key = args[0], args[1]
		args = args[2:]
	}
	if len(args) != 3 {
		fmt.Fprintf(os.Stderr, "push: got %d arguments, expected 3 or 5; see push -h\n", len(args))
		return errUsage
	}
	id, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return fmt.Errorf("numeric id is %q, expected 0 to 4294967295", args[1])
	}
	m := &apns.Message{ID: uint32(id), Token: args[0], Payload: apns.AlertPayload(args[2])}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	if *local {
		server := apnstest.NewServer(func(m *apns.Message) error {
			fmt.Printf("server received: id %d, token %s, payload %s\n", m.ID, m.Token, m.Payload)
			return nil
		})
		defer server.Close()
		return push(ctx, server.PushAddr, server.Config(), m)
	}
	config, err := load(*cert, *key, *ca)
	if err != nil {
		return err
	}
	return push(ctx, *addr, config, m)
}

func push(ctx context.Context, addr string, config *apns.Config, m *apns.Message) error {
	conn, err := apns.Dial(ctx, addr, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.WritePushMsg(ctx, m); err != nil {
		return err
	}
	err = conn.Shutdown(ctx)
	if pushErr, ok := errors.AsType[*apns.PushError](err); ok && !pushErr.Rejected() && pushErr.ID == m.ID {
		return nil // the server shuts down, and this was the last message it accepted
	}
	return err
}

// load makes a configuration of the files, each of which may be left out.
func load(cert, key, ca string) (*apns.Config, error) {
	config := new(tls.Config)
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, cmp.Or(key, cert))
		if err != nil {
			return nil, fmt.Errorf("certificate %s with key %s, both in PEM: %w", cert, cmp.Or(key, cert), err)
		}
		config.Certificates = []tls.Certificate{pair}
	} else if key != "" {
		return nil, fmt.Errorf("key %s is given without a certificate", key)
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM", ca)
		}
	}
	return &apns.Config{TLS: config}, nil
}
