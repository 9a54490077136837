// Command prune lists the devices from which the app was removed. Run prune -h for its usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/examples/internal/bulk"
	"example.com/apns/examples/internal/cli"
)

const help = `Prune lists dead devices: with -probe those that Apple's production server (-sandbox: the
sandbox) calls dead, and otherwise those that a feedback service names. It prints a line
"<token> dead_at: <seconds since 1970>" for each to standard output, and their number to
standard error.

	prune -addr <host:port> [flags]
	prune -addr <host:port> [flags] <certificate-file> <key-file>
	prune -probe -tokens <file> [flags]

The second form is that of the original program, which prints the number to standard
output. To try it without an Apple account, use the built-in test server, which has a few
dead devices:

	go run ./examples/prune -local
	go run ./examples/prune -local -probe

FEEDBACK SERVICE

The feedback service is part of the binary protocol. Apple closed its own in 2021, so give
the address of another one:

	go run ./examples/prune -addr feedback.example.com:2196 -cert cert.pem -key key.pem

Reading the list empties it on the server, so keep what prune prints. If the list ends
within a record, prune prints the records before it, says so, and exits with status 1.

A record may have a token that no device can have, with 0 bytes or more than 100. Prune
prints that record to standard error, says what is wrong with its token, and continues
with the next record. At the end it prints how many such records there were, and exits
with status 1. The list on standard output is valid all the same.

PROBING

HTTP/2 has no feedback service: the answer to each push says whether its device is dead.
With -probe, prune sends a push to each token of a file, with an authentication key or a
certificate, and lists the dead devices in the same form:

	go run ./examples/prune -probe -p8 AuthKey_ABC123DEFG.p8 -key-id ABC123DEFG -team-id DEF123GHIJ -bundle-id com.example.app -tokens tokens.txt
	go run ./examples/prune -probe -sandbox -cert cert.pem -key key.pem -tokens - <tokens.txt

A probe has a cost. It is one background push for each token. It may wake each device
that is alive, which runs the app for a moment and uses battery. An app may get only
two or three background pushes an hour: the probe is one of them, and may displace one
that the app needs. A device that is off does not get the probe later. If you send
pushes anyway, their answers say the same at no cost: see what push prints.

The list has the tokens for which the server answers Unregistered or ExpiredToken. If it
gives no time with that, dead_at is the time of the answer. The list does not have those
with BadDeviceToken: the server gives the same answer to a sandbox token in production,
and to a production token in the sandbox. For some tokens prune may not learn whether
they are dead: after a BadDeviceToken, an invalid line, a failure or Ctrl-C. It then
prints how many and why, and exits with status 1. The list is right, but may not be
complete.

The app may have registered a token after the time that prune prints. Delete the token
only if it did not.

FLAGS

`

var (
	server  cli.Server
	probing = flag.Bool("probe", false, "send a background push to each token of -tokens; the flags -tokens, -sandbox, -p8, -key-id,\n-team-id and -bundle-id are only for that")
	tokens  = flag.String("tokens", "", "the device tokens, a `file` with one per line; - means standard input")
)

func main() { cli.Exit(run()) }

func run() error {
	server.AddFlags("with -probe, if empty, " + apns.Production)
	if err := cli.Parse(help); err != nil {
		return err
	}
	count := os.Stderr
	switch flag.NArg() {
	case 0:
	case 2:
		server.Cert, server.Key = flag.Arg(0), flag.Arg(1)
		count = os.Stdout
	default:
		return cli.Usagef("number of arguments is %d, expected none or 2: certificate file, key file", flag.NArg())
	}
	if err := check(); err != nil {
		return err
	}
	if *probing {
		return probe(count)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if server.Local {
		return pruneLocal(ctx, count)
	}
	config, err := server.Config()
	if err != nil {
		return err
	}
	return prune(ctx, server.Addr, config, count)
}

// check returns an error if flags are missing or contradict each other.
func check() error {
	switch {
	case *probing && *tokens == "" && !server.Local:
		return cli.UsageError("-probe without -tokens, expected a file of device tokens, or - for standard input")
	case *probing && server.P8 != "" && server.BundleID == "":
		return cli.UsageError("-p8 without -bundle-id, expected the app's bundle ID: the key is for all of a team's apps")
	case *probing:
	case server.Sandbox || *tokens+server.P8+server.KeyID+server.TeamID+server.BundleID != "":
		return cli.UsageError("-tokens, -sandbox, -p8, -key-id, -team-id or -bundle-id without -probe, expected both: a feedback service has no use for it")
	case server.Addr == "" && !server.Local:
		return cli.UsageError("no -addr, expected that of a feedback service (Apple closed its own in 2021), or -probe to ask the HTTP/2 server")
	}
	return server.Check()
}

// localDead are the dead devices of -local.
var localDead = []string{"00c0ffee" + localRest, "0badcafe" + localRest, "deadbeef" + localRest}

const localRest = "00112233445566778899aabbccddeeff0102030405060708090a0b0c"

func pruneLocal(ctx context.Context, count io.Writer) error {
	test := apnstest.NewServer(nil)
	defer test.Close()
	for _, token := range localDead {
		test.AddFeedback(apns.Feedback{Token: token, DeadAt: time.Now().Add(-time.Hour)})
	}
	return prune(ctx, test.FeedbackAddr, test.Config(), count)
}

// prune prints the list of a feedback service, and the number of devices to count.
func prune(ctx context.Context, addr string, config *apns.Config, count io.Writer) error {
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
	if _, err := fmt.Fprintf(count, "%d dead devices.\n", n); err != nil {
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
