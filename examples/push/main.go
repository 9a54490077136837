// Command push sends a notification to one device or to many, and prints the outcome.
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
	"example.com/apns/internal/secret"
)

const usage = `Push sends a notification and prints its outcome: accepted; rejected, and why; not
sent; or in doubt. The exit status is 0 if the server accepted it, 2 for wrong
usage, and 1 otherwise.

	push [flags] <device-token> <numeric-id> <alert-text>
	push [flags] -payload <file> <device-token> <numeric-id>
	push [flags] -tokens <file> <alert-text>
	push [flags] -tokens <file> -payload <file>

The names of a certificate file and its key file may also come before the other
arguments, in place of -cert and -key. The id is used on the binary protocol and in
error messages.

To try it without an Apple account, push to the built-in test server:

	go run ./examples/push -local c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00 1 "Hello"

To push to a device, use an authentication key or a certificate. A device token is
valid either in the sandbox (apps run from Xcode) or in -production (TestFlight, App
Store):

	go run ./examples/push -p8 AuthKey_ABC123DEFG.p8 -key-id ABC123DEFG -team-id DEF123GHIJ -topic com.example.app <device-token> 1 "Hello"
	go run ./examples/push -cert cert.pem -key key.pem -topic com.example.app <device-token> 1 "Hello"

To push to a gateway of the binary protocol (Apple closed its own in 2021), give its
address. That protocol has no topic, push type or collapse ID:

	go run ./examples/push -addr gateway.example.com:2195 -cert cert.pem -key key.pem <device-token> 1 "Hello"

To push to many devices, write their tokens to a file or to standard input, one per
line:

	go run ./examples/push -local -tokens tokens.txt "Hello"
	go run ./examples/push -p8 AuthKey_ABC123DEFG.p8 -key-id ABC123DEFG -team-id DEF123GHIJ -topic com.example.app -tokens tokens.txt -retry-file retry.txt "Hello"
	go run ./examples/push -cert cert.pem -key key.pem -tokens - -retry-file retry.txt "Hello" <tokens.txt

Push reports each line that is not a token, and skips blank lines. It sends to a
token as often as the token is listed. At the end it prints how many notifications
were accepted, rejected (by reason), in doubt, not sent and invalid. The exit status
is 0 if all were accepted. On a terminal, a line shows the progress. After Ctrl-C,
push reads no more tokens, waits up to two seconds for the answers to what it has
read, and prints the same summary. A second Ctrl-C kills it.

The -retry-file gets the tokens to try again, one per line: those that were not sent,
also because of Ctrl-C; those with a rejection that may pass (status 429 or 5xx, or
403, which is about your credentials); and those in doubt, which may then get the
notification twice. The file is overwritten at the start, and stays empty if there is
nothing to try again.

Flags:
`

var (
	local      = flag.Bool("local", false, "push to the built-in test server, which has its own credentials")
	protocol   = flag.String("protocol", "h2", "with -local, the `protocol` to speak, h2 or binary; with other servers, TLS negotiates it")
	addr       = flag.String("addr", apns.Sandbox, "the server's `host:port`")
	production = flag.Bool("production", false, "push to "+apns.Production)
	p8         = flag.String("p8", "", "the authentication key, a .p8 `file`")
	keyID      = flag.String("key-id", "", "the `ID` of the authentication key, 10 letters and digits")
	teamID     = flag.String("team-id", "", "the `ID` of the key's team, 10 letters and digits")
	cert       = flag.String("cert", "", "the provider certificate, a PEM `file`")
	key        = flag.String("key", "", "the private key of the certificate, a PEM `file`; if empty, the file of -cert")
	ca         = flag.String("ca", "", "the certificate authority to trust instead of the system's, a PEM `file`")
	payload    = flag.String("payload", "", "push the JSON in this `file` unchanged, in place of an alert text")
	tokens     = flag.String("tokens", "", "push to all device tokens in this `file`, one per line; - means standard input")
	retryFile  = flag.String("retry-file", "", "with -tokens, write the tokens to try again to this `file`")
	verbose    = flag.Bool("v", false, "with -tokens, print why each notification was not accepted, and log failed connections")
)

func main() {
	out := bufio.NewWriter(os.Stdout) // keeps a write error until Flush
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
		fmt.Fprintln(os.Stderr, err) // begins with the outcome
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
	// Over HTTP/2 this returns the server's answer. On the binary protocol there is no
	// answer to an accepted message: Shutdown confirms that it was accepted.
	if err := conn.WritePushMsg(ctx, m); err != nil {
		return err
	}
	err = conn.Shutdown(ctx)
	if pushErr, ok := errors.AsType[*apns.PushError](err); ok && !pushErr.Rejected() && pushErr.ID == m.ID {
		return nil // the server shuts down, and this is the last message that it accepted
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

// localAddr returns the server's address and configuration for -protocol.
func localAddr(server *apnstest.Server) (string, *apns.Config) {
	if *protocol == "binary" {
		return server.PushAddr, server.Config()
	}
	return server.HTTP2Addr, server.TokenConfig()
}

// parse parses and checks the command line, and returns the message in it.
func parse() (*apns.Message, error) {
	m := new(apns.Message)
	flag.StringVar(&m.Topic, "topic", "", "the app's bundle `ID`, with the suffix that the -type requires, such as .voip")
	flag.StringVar((*string)(&m.PushType), "type", "alert", "the `type` of push: alert, background, voip ...")
	flag.StringVar(&m.CollapseID, "collapse-id", "", "an `ID`; on the device a push replaces an earlier one with the same ID")
	flag.Func("priority", "the `priority`: 10 at once, 5 or 1 to save the battery; unset or 0: left to the server", func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || !slices.Contains([]int{0, 1, 5, 10}, n) {
			return errors.New("expected 10, 5 or 1, or 0 to leave it to the server")
		}
		m.Priority = apns.Priority(n)
		return nil
	})
	flag.Func("expiry", "for which `duration`, such as 90m or 24h, the server tries to reach the device; 0: now or never;\n"+
		"unset: left to the server, but on the binary protocol without -priority the same as 0", func(s string) error {
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
			// It is not quoted: it may be a token or the text.
			return nil, usageError("numeric id is no number or out of range, expected 0 to 4294967295")
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

// check returns an error if flags are missing or contradict each other.
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
	case *protocol != "h2" && *protocol != "binary":
		return usageError(fmt.Sprintf("-protocol is %q, expected h2 or binary", *protocol))
	case given["protocol"] && !*local:
		return usageError("-protocol without -local, expected both: with other servers, TLS negotiates it")
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
		return nil, secret.FileError(err)
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

// load returns the configuration in the files. Each of them may be missing from the command
// line.
func load() (*apns.Config, error) {
	config := &apns.Config{TLS: new(tls.Config)}
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
