// Command worker pushes the messages of a queue, NATS JetStream, and acknowledges each as its
// outcome says.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"example.com/apns"
)

const usage = `Worker pushes the messages of a queue with Apple's production server, or with that of -addr,
and acknowledges each as its outcome says. The queue is NATS JetStream; the messages are in
the JSON form of apns.Message.

	worker [flags]                        demo: a queue, a push server and a thousand messages in this process
	worker -nats <url> -p8 <file> ...     push what is in the queue, until SIGTERM
	worker publish -nats <url>            publish the messages on standard input, one per line
	worker server -listen <host:port> -store <directory>
	                                      a NATS server, to try the other commands

Flags:
`

type settings struct {
	queueSettings
	nats, addr, p8, keyID, teamID, bundleID, ca, listen, store string
	inDoubt                                                    string
	room                                                       int
	grace                                                      time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err := run(ctx, os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	command := ""
	if len(args) > 0 && (args[0] == "publish" || args[0] == "server") {
		command, args = args[0], args[1:]
	}
	s, err := parse(command, args)
	if err != nil {
		return err
	}
	switch {
	case command == "server":
		return serveNATS(ctx, s)
	case command == "publish":
		// Standard input may block, and does not know of ctx.
		published := make(chan error, 1)
		go func() { published <- publishLines(ctx, os.Stdin, os.Stdout, s) }()
		select {
		case err := <-published:
			return err
		case <-ctx.Done():
			return errors.New("ended by a signal; to publish the same within two minutes stores nothing twice")
		}
	case s.nats == "":
		return demo(ctx, os.Stdout, s)
	}
	return work(ctx, s)
}

// parse returns the settings of a command: "publish", "server" or, for a worker, "".
func parse(command string, args []string) (*settings, error) {
	s := new(settings)
	f := flag.NewFlagSet("worker", flag.ContinueOnError)
	f.StringVar(&s.nats, "nats", "", "the `URL` of the NATS server, as nats://host:4222")
	f.StringVar(&s.addr, "addr", apns.Production, "the push server's `host:port`; Apple's for apps that Xcode runs is "+apns.Sandbox)
	f.StringVar(&s.p8, "p8", "", "the authentication key, a .p8 `file`")
	f.StringVar(&s.keyID, "key-id", "", "the `ID` of the authentication key")
	f.StringVar(&s.teamID, "team-id", "", "the `ID` of the key's team")
	f.StringVar(&s.bundleID, "bundle-id", "", "the bundle `ID` of the app that messages without a topic are for")
	f.StringVar(&s.ca, "ca", "", "the certificate authority to trust instead of the system's, a PEM `file`")
	f.StringVar(&s.inDoubt, "in-doubt", string(inDoubtRedeliver), "what becomes of a message in doubt: `redeliver`, and it may arrive twice; ack, and it may\nnever arrive; park, and "+subjectParked+" has it")
	f.IntVar(&s.room, "room", 4096, "how many messages this worker holds")
	f.IntVar(&s.pending, "pending", 20_000, "how many messages all workers hold together; those that wait for a delay count")
	f.DurationVar(&s.ackWait, "ack-wait", time.Minute, "how long a worker may give no sign before its messages go to another; a message has\nhalf of it to be pushed")
	f.DurationVar(&s.maxAge, "max-age", 24*time.Hour, "how long a message may wait in the queue; after that it is lost")
	f.IntVar(&s.replicas, "replicas", 1, "on how many NATS servers a message is stored, up to "+strconv.Itoa(maxReplicas))
	f.DurationVar(&s.grace, "grace", 20*time.Second, "how long to wait for answers after SIGTERM")
	f.StringVar(&s.listen, "listen", "", "serve /metrics, /healthz and /readyz on `host:port`; of server: the address for clients")
	f.StringVar(&s.store, "store", "", "of server: the `directory` for the streams")
	f.Usage = func() {
		fmt.Fprint(f.Output(), usage)
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("got %d arguments beside the flags, expected none; see -h", f.NArg())
	}
	return s, s.check(command)
}

// check says which flag of a command has a value that it cannot have.
func (s *settings) check(command string) error {
	switch p := inDoubtPolicy(s.inDoubt); {
	case s.nats == "" && command == "publish":
		return errors.New("-nats is empty, expected the URL of a NATS server")
	case s.nats == "" && command == "" && (s.p8 != "" || s.listen != ""):
		return errors.New("-nats is empty, expected the URL of a NATS server, since -p8 or -listen is set")
	case s.nats != "" && s.p8 == "" && command == "":
		return errors.New("-p8 is empty, expected the .p8 file of the authentication key, since -nats is set")
	case p != inDoubtRedeliver && p != inDoubtAck && p != inDoubtPark:
		return fmt.Errorf("-in-doubt is %q, expected redeliver, ack or park", s.inDoubt)
	case s.room < 1:
		return fmt.Errorf("-room is %d, expected at least 1", s.room)
	case s.pending < 1:
		return fmt.Errorf("-pending is %d, expected at least 1", s.pending)
	case s.ackWait < time.Second:
		return fmt.Errorf("-ack-wait is %v, expected at least a second", s.ackWait)
	case s.maxAge < duplicatesWindow:
		return fmt.Errorf("-max-age is %v, expected at least %v, for which NATS remembers what was published", s.maxAge, duplicatesWindow)
	case s.replicas < 1 || s.replicas > maxReplicas:
		return fmt.Errorf("-replicas is %d, expected 1 to %d", s.replicas, maxReplicas)
	case s.grace < 0:
		return fmt.Errorf("-grace is %v, expected 0 or more", s.grace)
	}
	return nil
}

// client returns a Client for the settings. A message has half of ackWait, so that JetStream
// does not deliver it to another worker while this one may still push it. The attempts are
// counted in m.
func (s *settings) client(m *metrics) (*apns.Client, error) {
	key, err := apns.LoadAuthKey(s.p8, s.keyID, s.teamID)
	if err != nil {
		return nil, err
	}
	config := &apns.Config{Key: key, BundleID: s.bundleID, Logger: slog.Default()}
	if s.ca != "" {
		pem, err := os.ReadFile(s.ca)
		if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
			err = pathErr.Err // without the name, which may be a secret, passed by mistake
		}
		if err != nil {
			return nil, fmt.Errorf("reading the file of -ca: %w", err)
		}
		config.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
		if !config.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificates, expected PEM", s.ca)
		}
	}
	return &apns.Client{Addr: s.addr, Config: config, Timeout: s.ackWait / 2, OnAttempt: m.attempts.observe}, nil
}

// work runs a worker until ctx ends.
func work(ctx context.Context, s *settings) error {
	m := new(metrics)
	client, err := s.client(m)
	if err != nil {
		return err
	}
	defer client.Close()
	nc, js, err := connect(s.nats, "apns-worker")
	if err != nil {
		return err
	}
	defer nc.Close()
	q, err := openQueue(ctx, nc, js, s.queueSettings)
	if err != nil {
		return err
	}
	w, err := newWorker(q, client, m, inDoubtPolicy(s.inDoubt), s.room, s.grace)
	if err != nil {
		return err
	}
	if s.listen != "" {
		l, err := net.Listen("tcp", s.listen)
		if err != nil {
			return err
		}
		h := &http.Server{Handler: w.handler(), ReadHeaderTimeout: 10 * time.Second}
		go h.Serve(l)
		defer h.Close()
	}
	return w.run(ctx)
}

// serveNATS runs a NATS server until ctx ends.
func serveNATS(ctx context.Context, s *settings) error {
	host, port, err := net.SplitHostPort(s.listen)
	n, portErr := strconv.Atoi(port)
	if err != nil || portErr != nil || host == "" || s.store == "" {
		return errors.New("-listen and -store are not both set, expected a host:port and a directory")
	}
	server, err := startServer(host, n, s.store)
	if err != nil {
		return err
	}
	<-ctx.Done()
	server.Shutdown()
	server.WaitForShutdown()
	return nil
}
