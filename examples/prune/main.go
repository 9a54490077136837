// Command prune lists the devices from which the app has gone.
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
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

const usage = `Prune lists the devices that the feedback service says are dead: a line
"<token> dead_at: <seconds since 1970>" for each, and their number. Reading the
list empties it on the server, so keep what it prints. If the list ends within a
record, prune prints what it has got, says so, and exits with status 1.

The feedback service is part of the binary protocol. Over HTTP/2 there is none:
the answer to each push says whether its device is dead.

	prune [flags]
	prune [flags] <certificate-file> <key-file>

Without credentials, from a server of its own with a few dead devices:

	go run ./examples/prune -local

From a feedback service (Apple closed its own in 2021):

	go run ./examples/prune -addr feedback.example.com:2196 -cert cert.pem -key key.pem

Flags:
`

func main() {
	err := run()
	switch {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage")

func run() error {
	addr := flag.String("addr", "feedback.sandbox.push.apple.com:2196", "the feedback service's `host:port`")
	cert := flag.String("cert", "", "the provider certificate, a PEM `file`")
	key := flag.String("key", "", "its private key, a PEM `file`; if empty, that of -cert")
	ca := flag.String("ca", "", "the authority to trust instead of the system's, a PEM `file`")
	local := flag.Bool("local", false, "start a server in this process and read from it")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	switch flag.NArg() {
	case 0:
	case 2:
		*cert, *key = flag.Arg(0), flag.Arg(1)
	default:
		fmt.Fprintf(os.Stderr, "prune: got %d arguments, expected none or 2; see prune -h\n", flag.NArg())
		return errUsage
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()

	if *local {
		server := apnstest.NewServer(nil)
		defer server.Close()
		for _, token := range []string{"00c0ffee", "0badcafe", "deadbeef"} {
			server.AddFeedback(apns.Feedback{
				Token:  token + "00112233445566778899aabbccddeeff0102030405060708090a0b0c",
				DeadAt: time.Now().Add(-time.Hour),
			})
		}
		return prune(ctx, server.FeedbackAddr, server.Config())
	}
	config, err := load(*cert, *key, *ca)
	if err != nil {
		return err
	}
	return prune(ctx, *addr, config)
}

func prune(ctx context.Context, addr string, config *apns.Config) error {
	conn, err := apns.Dial(ctx, addr, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	n := 0
	for f, err := range conn.Feedback(ctx) {
		if errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf(insteadOfFeedback, addr)
		}
		if err != nil {
			if n == 0 {
				return err
			}
			return fmt.Errorf("the list ends early, after %d dead devices: %w", n, err)
		}
		// What is not written is lost: the server has forgotten it.
		if _, err := fmt.Printf("%s dead_at: %d\n", f.Token, f.DeadAt.Unix()); err != nil {
			return err
		}
		n++
	}
	_, err = fmt.Printf("%d dead devices.\n", n)
	return err
}

const insteadOfFeedback = `%s speaks HTTP/2, where there is no feedback service.
The answer to each push says whether its device is dead: HTTP status 410, and the
time. So look at the errors of WritePushMsg:

	pushErr, ok := errors.AsType[*apns.PushError](err)
	if ok && (pushErr.Reason == apns.ReasonUnregistered || pushErr.Reason == apns.ReasonExpiredToken) {
		// delete the token, unless it was registered again after pushErr.DeadAt
	}`

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
