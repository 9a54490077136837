// Command prune lists the devices from which the app was removed.
package main

import (
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
	"example.com/apns/examples/internal/bulk"
	"example.com/apns/internal/secret"
)

const usage = `Prune lists the devices that are dead according to the feedback service: a line
"<token> dead_at: <seconds since 1970>" for each, and their number. Reading the list
empties it on the server, so keep what prune prints. If the list ends within a record,
prune prints the records before it, says so, and exits with status 1.

A record may have a token that no device can have, with 0 bytes or more than 100.
Prune prints that record to standard error, says what is wrong with its token, and
continues with the next record. At the end it prints how many such records there were,
and exits with status 1. The list on standard output is valid all the same.

The feedback service is part of the binary protocol. HTTP/2 has none: the answer to
each push says whether its device is dead. With -probe, prune sends a push to each
token of a file, and lists the dead devices in the same form.

	prune [flags]
	prune [flags] <certificate-file> <key-file>
	prune -probe -tokens <file> [flags]
	prune -probe -tokens <file> [flags] <certificate-file> <key-file>

To try it without an Apple account, use the built-in test server, which has a few dead
devices:

	go run ./examples/prune -local
	go run ./examples/prune -local -probe

To read from a feedback service (Apple closed its own in 2021), give its address:

	go run ./examples/prune -addr feedback.example.com:2196 -cert cert.pem -key key.pem

To probe tokens with Apple's servers, use an authentication key or a certificate. The
tokens are those of the sandbox or, with -production, those of production:

	go run ./examples/prune -probe -p8 AuthKey_ABC123DEFG.p8 -key-id ABC123DEFG -team-id DEF123GHIJ -topic com.example.app -tokens tokens.txt
	go run ./examples/prune -probe -cert cert.pem -key key.pem -tokens - <tokens.txt

A probe has a cost. It is one background push for each token. It may wake each device
that is alive, which runs the app for a moment and uses battery. An app may get only
two or three background pushes an hour: the probe is one of them, and may displace one
that the app needs. A device that is off does not get the probe later. If you send
pushes anyway, their answers say the same at no cost: see what push prints.

The list has the tokens for which the server answers Unregistered or ExpiredToken. It
does not have those with BadDeviceToken: the server gives the same answer to a sandbox
token in production, and to a production token in the sandbox. For some tokens prune may
not learn whether they are dead: after a BadDeviceToken, an invalid line, a failure or
Ctrl-C. It then prints how many and why, and exits with status 1. The list is right, but
may not be complete.

The app may have registered a token after the time that prune prints. Delete the token
only if it did not.

Flags:
`

var (
	addr       = flag.String("addr", "feedback.sandbox.push.apple.com:2196", "the `host:port` of the feedback service; with -probe, that of the server, by default\n"+apns.Sandbox)
	cert       = flag.String("cert", "", "the provider certificate, a PEM `file`")
	key        = flag.String("key", "", "the private key of the certificate, a PEM `file`; if empty, the file of -cert")
	ca         = flag.String("ca", "", "the certificate authority to trust instead of the system's, a PEM `file`")
	local      = flag.Bool("local", false, "read from the built-in test server, or probe it")
	probing    = flag.Bool("probe", false, "send a background push to each token of -tokens; the flags -tokens, -production, -p8,\n-key-id, -team-id and -topic are only for that")
	tokens     = flag.String("tokens", "", "the device tokens, a `file` with one per line; - means standard input")
	production = flag.Bool("production", false, "probe with "+apns.Production)
	p8         = flag.String("p8", "", "the authentication key, a .p8 `file`")
	keyID      = flag.String("key-id", "", "the `ID` of the authentication key, 10 letters and digits")
	teamID     = flag.String("team-id", "", "the `ID` of the key's team, 10 letters and digits")
	topic      = flag.String("topic", "", "the app's bundle `ID`")
)

func main() {
	err := run()
	_, wrongUsage := errors.AsType[usageError](err)
	switch {
	case wrongUsage:
		fmt.Fprintf(os.Stderr, "prune: %v; see prune -h\n", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

type usageError string

func (e usageError) Error() string { return string(e) }

func run() error {
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
		return usageError(fmt.Sprintf("got %d arguments, expected none or 2", flag.NArg()))
	}
	if err := check(); err != nil {
		return err
	}
	switch {
	case *probing && *local:
		return probeLocal(*tokens)
	case *probing:
		return probeFile(*tokens)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if *local {
		return pruneLocal(ctx)
	}
	config, err := load()
	if err != nil {
		return err
	}
	return prune(ctx, *addr, config)
}

// check returns an error if flags are missing or contradict each other.
func check() error {
	given := make(map[string]bool)
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	hasKey := *p8 != ""
	if !*probing {
		for _, name := range []string{"tokens", "production", "p8", "key-id", "team-id", "topic"} {
			if given[name] {
				return usageError(fmt.Sprintf("-%s without -probe, expected both: the feedback service has no use for it", name))
			}
		}
		return nil
	}
	switch {
	case *local && (given["addr"] || *production || *p8+*keyID+*teamID+*topic+*cert+*key+*ca != ""):
		return usageError("-local with an address or credentials, expected neither: it has its own")
	case *local:
		return nil
	case *tokens == "":
		return usageError("-probe without -tokens, expected a file of device tokens, or - for standard input")
	case *production && given["addr"]:
		return usageError("both -production and -addr, expected one of them")
	case hasKey != (*keyID != "") || hasKey != (*teamID != ""):
		return usageError("-p8, -key-id and -team-id go together, expected all three or none")
	case hasKey && *cert != "":
		return usageError("both -p8 and a certificate, expected one of them")
	case !hasKey && *cert == "":
		return usageError("no credentials, expected -p8 with -key-id and -team-id, or -cert with -key; or -local, which needs none")
	case hasKey && *topic == "":
		return usageError("-p8 without -topic, expected the app's bundle ID: the key is for all of a team's apps")
	case *production:
		*addr = apns.Production
	case !given["addr"]:
		*addr = apns.Sandbox
	}
	return nil
}

// localDead are the dead devices of -local.
var localDead = []string{"00c0ffee" + localRest, "0badcafe" + localRest, "deadbeef" + localRest}

const localRest = "00112233445566778899aabbccddeeff0102030405060708090a0b0c"

func pruneLocal(ctx context.Context) error {
	server := apnstest.NewServer(nil)
	defer server.Close()
	for _, token := range localDead {
		server.AddFeedback(apns.Feedback{Token: token, DeadAt: time.Now().Add(-time.Hour)})
	}
	return prune(ctx, server.FeedbackAddr, server.Config())
}

func prune(ctx context.Context, addr string, config *apns.Config) error {
	conn, err := apns.Dial(ctx, addr, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	n, invalid := 0, 0
	for f, err := range conn.Feedback(ctx) {
		if errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf(insteadOfFeedback, addr)
		}
		if err != nil {
			if n+invalid > 0 {
				err = fmt.Errorf("the list ends early, after %d dead devices: %w", n, err)
			}
			return errors.Join(err, invalidRecords(invalid))
		}
		// Every record has to be printed: the server no longer has it.
		if err := f.Check(); err != nil {
			fmt.Fprintf(os.Stderr, "invalid: %q dead_at: %d: %s\n", f.Token, f.DeadAt.Unix(), bulk.Plain(err))
			invalid++
			continue
		}
		if _, err := fmt.Printf("%s dead_at: %d\n", f.Token, f.DeadAt.Unix()); err != nil {
			return err
		}
		n++
	}
	if _, err := fmt.Printf("%d dead devices.\n", n); err != nil {
		return err
	}
	return invalidRecords(invalid)
}

// invalidRecords returns an error with the number of records whose token no device can have.
// It returns nil if that is 0.
func invalidRecords(n int) error {
	if n == 0 {
		return nil
	}
	return fmt.Errorf("records with an invalid token: %d (printed to standard error, not listed)", n)
}

const insteadOfFeedback = `%s speaks HTTP/2, where there is no feedback service.
The answer to each push says whether its device is dead: HTTP status 410, and the
time. So use -probe (see prune -h), or look at the errors of WritePushMsg:

	pushErr, ok := errors.AsType[*apns.PushError](err)
	if ok && (pushErr.Reason == apns.ReasonUnregistered || pushErr.Reason == apns.ReasonExpiredToken) {
		// delete the token, unless it was registered again after pushErr.DeadAt
	}`

// load returns the configuration in the files. Each of them may be missing from the command
// line.
func load() (*apns.Config, error) {
	config := &apns.Config{TLS: new(tls.Config), BundleID: *topic}
	if *p8 != "" {
		var err error
		if config.Key, err = apns.LoadAuthKey(*p8, *keyID, *teamID); err != nil {
			return nil, err
		}
	}
	if *cert != "" {
		pair, err := apns.LoadCertificate(*cert, *key, "")
		if err != nil {
			return nil, err
		}
		config.TLS.Certificates = []tls.Certificate{pair}
	} else if *key != "" {
		return nil, errors.New("-key is given without -cert, expected both")
	}
	if *ca != "" {
		pem, err := os.ReadFile(*ca)
		if err != nil {
			return nil, secret.FileError(err)
		}
		config.TLS.RootCAs = x509.NewCertPool()
		if !config.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM", *ca)
		}
	}
	return config, nil
}
