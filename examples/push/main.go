// Command push sends a notification, to one device or to many, and says what became
// of it.
package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

const usage = `Push sends a notification and says what became of it: accepted; rejected, and
why; not sent; or in doubt. The exit status is 0 if the server accepted it, 2 for
wrong usage, and 1 for all else.

	push [flags] <device-token> <numeric-id> <alert-text>
	push [flags] -payload <file> <device-token> <numeric-id>
	push [flags] -tokens <file> <alert-text>
	push [flags] -tokens <file> -payload <file>

A certificate and its key may also stand in front of the other arguments, in place
of -cert and -key. The id is for the binary protocol and for error messages.

Without credentials, to a server of its own, which it starts for the purpose:

	go run ./examples/push -local c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00 1 "Hello"

To a device, with an authentication key or with a certificate. A device token is
good either for the sandbox (apps run from Xcode) or for -production (TestFlight,
App Store):

	go run ./examples/push -p8 AuthKey_ABC123DEFG.p8 -key-id ABC123DEFG -team-id DEF123GHIJ -topic com.example.app <device-token> 1 "Hello"
	go run ./examples/push -cert cert.pem -key key.pem -topic com.example.app <device-token> 1 "Hello"

To a gateway of the binary protocol (Apple closed its own in 2021), which has no
place for -topic, -type and -collapse-id:

	go run ./examples/push -addr gateway.example.com:2195 -cert cert.pem -key key.pem <device-token> 1 "Hello"

To many devices, whose tokens are in a file, one a line, or come from standard
input:

	go run ./examples/push -local -tokens tokens.txt "Hello"
	go run ./examples/push -p8 AuthKey_ABC123DEFG.p8 -key-id ABC123DEFG -team-id DEF123GHIJ -topic com.example.app -tokens tokens.txt -retry-file retry.txt "Hello"
	go run ./examples/push -cert cert.pem -key key.pem -tokens - -retry-file retry.txt "Hello" <tokens.txt

It reports the lines that hold no token, skips blank ones, sends to the others, as
often as they are there, and at the end prints how many were accepted, rejected
and why, in doubt, not sent and invalid. The exit status is 0 if all were
accepted. On a terminal a line shows how far it is. Ctrl-C reads no more, gives what
was read two seconds to be sent and answered, and comes to that end; Ctrl-C
again kills it.

The -retry-file gets the tokens to try again, one a line: those that were not
sent, also because of Ctrl-C; those with a rejection that may pass (status 429,
5xx, or 403, which is about your credentials); and those in doubt, which may get
the notification twice that way. It is overwritten at the start, and stays empty
if there is nothing to try again.

Flags:
`

var (
	local      = flag.Bool("local", false, "start a server in this process and push to it; it has its own credentials")
	wire       = flag.String("wire", "h2", "the `protocol` to speak with -local, h2 or binary; any other server decides itself")
	addr       = flag.String("addr", apns.Sandbox, "the server's `host:port`")
	production = flag.Bool("production", false, "push to "+apns.Production)
	p8         = flag.String("p8", "", "the authentication key, a .p8 `file`")
	keyID      = flag.String("key-id", "", "the `ID` of that key, 10 letters and digits")
	teamID     = flag.String("team-id", "", "the `ID` of its team, 10 letters and digits")
	cert       = flag.String("cert", "", "the provider certificate, a PEM `file`")
	key        = flag.String("key", "", "its private key, a PEM `file`; if empty, that of -cert")
	ca         = flag.String("ca", "", "the authority to trust instead of the system's, a PEM `file`")
	payload    = flag.String("payload", "", "push the JSON in this `file`, as it is, in place of an alert text")
	tokens     = flag.String("tokens", "", "push to all device tokens in this `file`, one a line; -: standard input")
	retryFile  = flag.String("retry-file", "", "with -tokens, write those to try again to this `file`")
	verbose    = flag.Bool("v", false, "with -tokens, say of each that was not accepted why, and log failed connections")
)

func main() {
	out := bufio.NewWriter(os.Stdout) // remembers what goes wrong for Flush
	err := run(out)
	if err == nil && *tokens == "" {
		fmt.Fprintln(out, "accepted")
	}
	flushErr := out.Flush()
	_, wrongUsage := errors.AsType[usageError](err)
	pushErr, said := errors.AsType[*apns.PushError](err)
	switch {
	case err == nil && flushErr == nil:
		return
	case err == nil:
		fmt.Fprintln(os.Stderr, "accepted, but:", flushErr)
	case errors.Is(err, errNotAll):
		if flushErr != nil {
			fmt.Fprintln(os.Stderr, "error:", flushErr)
		}
	case wrongUsage:
		fmt.Fprintf(os.Stderr, "push: %v; see push -h\n", err)
		os.Exit(2)
	case said && pushErr.Rejected():
		fmt.Fprintln(os.Stderr, "rejected:", err)
	case errors.Is(err, apns.ErrInDoubt), errors.Is(err, apns.ErrNotSent):
		fmt.Fprintln(os.Stderr, err) // which begins with just that
	default:
		fmt.Fprintln(os.Stderr, "not sent:", err)
	}
	os.Exit(1)
}

type usageError string

func (e usageError) Error() string { return string(e) }

// run returns nil if the notification was accepted.
func run(out io.Writer) error {
	m, err := parse()
	if err != nil {
		return err
	}
	if *tokens != "" {
		return runMany(out, m)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if *local {
		return pushLocal(ctx, out, m)
	}
	config, err := load()
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
	// Over HTTP/2 this returns the server's answer. On the binary wire there is
	// none if all is well, and it takes Shutdown to prove that.
	if err := conn.WritePushMsg(ctx, m); err != nil {
		return err
	}
	err = conn.Shutdown(ctx)
	if pushErr, ok := errors.AsType[*apns.PushError](err); ok && !pushErr.Rejected() && pushErr.ID == m.ID {
		return nil // the server shuts down, and this was the last message it accepted
	}
	return err
}

func pushLocal(ctx context.Context, out io.Writer, m *apns.Message) error {
	server := apnstest.NewServer(nil)
	defer server.Close()
	addr, config := localAddr(server)
	err := push(ctx, addr, config, m)
	for _, r := range server.Records() {
		m := r.Message
		expiry := ""
		switch {
		case m.Expiry.IsZero():
		case m.Expiry.Unix() == 0:
			expiry = ", expiry now or never"
		default:
			expiry = ", expiry " + m.Expiry.Format(time.RFC3339)
		}
		fmt.Fprintf(out, "server received: token %s, topic %q, push type %q, collapse ID %q, priority %d%s, payload %s\n",
			m.Token, m.Topic, m.PushType, m.CollapseID, m.Priority, expiry, m.Payload)
	}
	return err
}

// localAddr returns how to reach the server over the wire that was asked for.
func localAddr(server *apnstest.Server) (string, *apns.Config) {
	if *wire == "binary" {
		return server.PushAddr, server.Config()
	}
	return server.HTTP2Addr, server.TokenConfig()
}

// parse makes the message of the command line, and checks the rest of that.
func parse() (*apns.Message, error) {
	m := new(apns.Message)
	flag.StringVar(&m.Topic, "topic", "", "the app's bundle `ID`, and the suffix that the -type calls for, as .voip")
	flag.StringVar((*string)(&m.PushType), "type", "alert", "the `type` of push: alert, background, voip ...")
	flag.StringVar(&m.CollapseID, "collapse-id", "", "an `ID` that merges pushes on the device")
	flag.Func("priority", "the `priority`: 10 at once, 5 and 1 to spare the battery; unset or 0: left to the server", func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || !slices.Contains([]int{0, 1, 5, 10}, n) {
			return errors.New("expected 10, 5 or 1, or 0 to leave it to the server")
		}
		m.Priority = apns.Priority(n)
		return nil
	})
	flag.Func("expiry", "the `duration`, as 90m or 24h, of the attempts to reach the device; 0: now or never;\n"+
		"unset: left to the server, but on the binary wire without -priority the same as 0", func(s string) error {
		d, err := time.ParseDuration(s)
		switch {
		case err != nil || d < 0:
			return errors.New("expected a duration from now, as 90m or 24h, or 0 for now or never")
		case d == 0:
			m.Expiry = time.Unix(0, 0)
		default:
			m.Expiry = time.Now().Add(d)
		}
		return nil
	})
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()

	args, want := flag.Args(), []string{"device token", "numeric id", "alert text"}
	if *payload != "" {
		want = want[:2]
	}
	if *tokens != "" {
		want = want[2:]
	}
	if len(args) == len(want)+2 {
		if *cert != "" || *key != "" {
			return nil, usageError("a certificate both in front of the device token and in -cert or -key, expected one of them")
		}
		*cert, *key, args = args[0], args[1], args[2:]
	}
	if len(args) != len(want) {
		return nil, usageError(fmt.Sprintf("got %d arguments, expected %d: %s", len(args), len(want), cmp.Or(strings.Join(want, ", "), "-tokens and -payload say it all")))
	}
	if err := check(m); err != nil {
		return nil, err
	}
	if *tokens == "" {
		id, err := strconv.ParseUint(args[1], 10, 32)
		if err != nil {
			return nil, usageError(fmt.Sprintf("numeric id is %q, expected 0 to 4294967295", args[1]))
		}
		m.Token, m.ID = args[0], uint32(id)
	}
	var err error
	if *payload != "" {
		m.Payload, err = readJSON(*payload)
	} else {
		m.Payload = apns.AlertPayload(args[len(args)-1])
	}
	return m, err
}

// check says what is missing among the flags, or contradicts each other.
func check(m *apns.Message) error {
	given := make(map[string]bool)
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	hasKey := *p8 != ""
	switch {
	case *retryFile != "" && *tokens == "":
		return usageError("-retry-file without -tokens, expected both")
	case *verbose && *tokens == "":
		return usageError("-v without -tokens, expected both")
	case *retryFile == "-":
		return usageError("-retry-file is -, expected the name of a file")
	case *wire != "h2" && *wire != "binary":
		return usageError(fmt.Sprintf("-wire is %q, expected h2 or binary", *wire))
	case given["wire"] && !*local:
		return usageError("-wire without -local, expected both: any other server decides itself")
	case *local && (given["addr"] || *production || *p8+*keyID+*teamID+*cert+*key+*ca != ""):
		return usageError("-local with an address or credentials, expected neither: it has its own")
	case *local:
		return nil
	case *production && given["addr"]:
		return usageError("both -production and -addr, expected one of them")
	case hasKey != (*keyID != "") || hasKey != (*teamID != ""):
		return usageError("-p8, -key-id and -team-id go together, expected all three or none")
	case *key != "" && *cert == "":
		return usageError("-key without -cert, expected the certificate as well")
	case hasKey && *cert != "":
		return usageError("both -p8 and a certificate, expected one of them")
	case !hasKey && *cert == "":
		return usageError("no credentials, expected -p8 with -key-id and -team-id, or -cert with -key; or -local, which needs none")
	case hasKey && m.Topic == "":
		return usageError("-p8 without -topic, expected the app's bundle ID: the key is for all of a team's apps")
	}
	if *production {
		*addr = apns.Production
	}
	return nil
}

// readJSON reads a file that holds a JSON object.
func readJSON(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var object map[string]json.RawMessage
	err = json.Unmarshal(b, &object)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return nil, fmt.Errorf("%s is not JSON, at byte %d: %w", file, syntax.Offset, err)
	}
	if object == nil {
		return nil, fmt.Errorf(`%s is not a JSON object, expected {"aps":...}`, file)
	}
	return b, nil
}

// load makes a configuration of the files, each of which may be left out.
func load() (*apns.Config, error) {
	config := &apns.Config{TLS: new(tls.Config)}
	if *p8 != "" {
		var err error
		if config.Key, err = apns.LoadAuthKey(*p8, *keyID, *teamID); err != nil {
			return nil, err
		}
	}
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, cmp.Or(*key, *cert))
		if err != nil {
			return nil, fmt.Errorf("certificate %s with key %s, both in PEM: %w", *cert, cmp.Or(*key, *cert), err)
		}
		config.TLS.Certificates = []tls.Certificate{pair}
	}
	if *ca != "" {
		pem, err := os.ReadFile(*ca)
		if err != nil {
			return nil, err
		}
		config.TLS.RootCAs = x509.NewCertPool()
		if !config.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM", *ca)
		}
	}
	return config, nil
}
