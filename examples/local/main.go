// Command local runs a server that stands in for Apple's push services on this machine. It
// answers any client, and shows each push that it receives. Run local -h for its usage.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/examples/internal/cli"
	"example.com/apns/examples/local/page"
)

const help = `Local runs a server that stands in for Apple's, for clients in any language:
the HTTP/2 provider API, the binary gateway and the feedback service. It writes
the certificates and keys that a client needs into a folder, prints commands to
try, and shows each push as it arrives, on standard output and on a web page.
Ctrl-C ends it.

	go run ./examples/local [flags]

It accepts every token except two kinds. A token that begins with "bad" is
rejected as BadDeviceToken. A token that begins with "dead" is rejected as
Unregistered over HTTP/2. On the binary protocol it is accepted, and the feedback
service lists it, as Apple's did. On the page, and with its JSON API (docs/local.md),
one can set other answers.

Flags:
`

const (
	goodToken = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"
	deadToken = "dead00c0c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"
)

func main() { cli.Exit(run()) }

func run() error {
	http2 := flag.Int("http2", 8443, "the `port` of the HTTP/2 provider API; 0 means any free port, for each of the three")
	push := flag.Int("push", 2195, "the `port` of the binary gateway")
	feedback := flag.Int("feedback", 2196, "the `port` of the feedback service")
	dir := flag.String("dir", "apns-local", "the `folder` for certificates and keys, which are new at each start")
	withPage := flag.Bool("page", true, "serve the web page")
	pageAddr := flag.String("page-addr", "127.0.0.1:8444", "the `address` of the web page")
	open := flag.Bool("open", false, "open the web page in the browser")
	keep := flag.Int("keep", 10_000, "how many `messages` to keep in memory: the latest")
	if err := cli.Parse(help); err != nil {
		return err
	}
	if flag.NArg() != 0 {
		return cli.Usagef("number of arguments is %d, expected none", flag.NArg())
	}
	if *keep < 1 {
		return fmt.Errorf("-keep is %d, expected 1 or more", *keep)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	deadAt := time.Now().Add(-time.Hour).Truncate(time.Second)
	server := apnstest.NewUnstartedServer(nil)
	rules := new(page.Rules)
	server.Handler = handler(server, deadAt, rules)
	server.MaxRecords, server.KeepRaw = *keep, *withPage
	server.AddFeedback(apns.Feedback{Token: deadToken, DeadAt: deadAt}) // so that prune reads at least one
	server.HTTP2Addr, server.PushAddr, server.FeedbackAddr = loopback(*http2), loopback(*push), loopback(*feedback)
	if err := start(server); err != nil {
		return err
	}
	defer server.Close()
	files, err := writeFiles(*dir, server.Certificates())
	if err != nil {
		return err
	}
	url := ""
	if *withPage {
		if err := keepAuthorization(ctx, files.authorization, server.Certificates().AuthKey); err != nil {
			return err
		}
		p := &page.Page{Server: server, Rules: rules, Files: page.Files{
			CA: files.ca, Cert: files.cert, Key: files.key, AuthKey: files.p8, Authorization: files.authorization,
		}}
		if url, err = servePage(ctx, *pageAddr, p); err != nil {
			return err
		}
	}
	printCommands(server, files, deadAt, url)
	if *open && url != "" {
		if err := openBrowser(url); err != nil {
			fmt.Fprintln(os.Stderr, "error: the page is not opened:", err)
		}
	}
	printRecords(ctx, server)
	return nil
}

// printRecords prints what the server does, until ctx ends.
func printRecords(ctx context.Context, server *apnstest.Server) {
	out := bufio.NewWriterSize(os.Stdout, 64<<10)
	for printed := 0; ; {
		err := server.Wait(ctx, printed+1)
		for _, r := range server.RecordsAfter(printed) { // the server keeps the latest records
			printRecord(out, r)
			printed = r.Number
		}
		out.Flush()
		if err != nil { // Ctrl-C has ended ctx
			return
		}
	}
}

// handler returns a handler that does what the rules say. Without a rule it accepts every
// token, except those that begin with bad or dead: see help.
func handler(server *apnstest.Server, deadAt time.Time, rules *page.Rules) func(*apns.Message) error {
	var listed sync.Map // dead tokens that were added to the feedback list
	return func(m *apns.Message) error {
		if err, ok := rules.Answer(m); ok {
			return err
		}
		dead := strings.HasPrefix(m.Token, "dead")
		if dead {
			if _, ok := listed.LoadOrStore(m.Token, true); !ok {
				server.AddFeedback(apns.Feedback{Token: m.Token, DeadAt: deadAt})
			}
		}
		switch {
		case dead && !isBinary(m):
			return &apns.PushError{HTTPStatus: 410, Reason: apns.ReasonUnregistered, DeadAt: deadAt}
		case !strings.HasPrefix(m.Token, "bad"):
			return nil
		case isBinary(m):
			return apns.StatusInvalidToken
		}
		return apns.ReasonBadDeviceToken
	}
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// start starts the server. It returns an error if a port is in use, for which Start panics.
func start(server *apnstest.Server) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v (the flags -http2, -push and -feedback give other ports)", p)
		}
	}()
	server.Start()
	return nil
}

// paths are the paths of the files that writeFiles writes.
type paths struct{ ca, serverCert, serverKey, cert, key, p8, authorization string }

// writeFiles writes the server's certificates and keys into a folder. If the folder has
// files of these names that this program has not written, it returns an error: they may be
// keys that somebody needs.
func writeFiles(dir string, certs apnstest.Certificates) (paths, error) {
	in := func(name string) string { return filepath.Join(dir, name) }
	p := paths{in("ca.pem"), in("server.pem"), in("server.key"), in("cert.pem"), in("key.pem"), in("AuthKey_" + apnstest.KeyID + ".p8"), in("authorization.txt")}
	files := []struct {
		name string
		pem  []byte
		mode os.FileMode
	}{
		{p.p8, certs.AuthKey, 0o600}, // the first, since it marks a folder that this program has written
		{p.ca, certs.CA, 0o644},
		{p.serverCert, certs.ServerCert, 0o644},
		{p.serverKey, certs.ServerKey, 0o600},
		{p.cert, certs.ClientCert, 0o644},
		{p.key, certs.ClientKey, 0o600},
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return p, err
	}
	if _, err := os.Stat(p.p8); err != nil {
		for _, name := range []string{p.p8, p.ca, p.serverCert, p.serverKey, p.cert, p.key, p.authorization} {
			if _, err := os.Lstat(name); err == nil {
				return p, fmt.Errorf("%s is there already, and not from this program: give -dir another folder", name)
			}
		}
	}
	for _, f := range files {
		os.Remove(f.name) // an existing file would keep its mode
		if err := os.WriteFile(f.name, f.pem, f.mode); err != nil {
			return p, err
		}
	}
	return p, nil
}

// printCommands prints the addresses, the files and commands to try.
func printCommands(server *apnstest.Server, files paths, deadAt time.Time, url string) {
	fmt.Printf(`HTTP/2 provider API  %s
binary gateway       %s
feedback service     %s
web page             %s

To trust:            %s
Provider token:      %s, key ID %s, team ID %s
Or certificate:      %s with %s
Bundle ID:           %s

`, server.HTTP2Addr, server.PushAddr, server.FeedbackAddr, printable(url),
		files.ca, files.p8, apnstest.KeyID, apnstest.TeamID, files.cert, files.key, apnstest.BundleID)
	cert := []string{"-cert", files.cert, "-key", files.key}
	token := []string{"-p8", files.p8, "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID, "-bundle-id", apnstest.BundleID}
	for _, c := range []struct {
		what, program, addr string
		credentials, args   []string
	}{
		{"A push over HTTP/2, with a provider token", "push", server.HTTP2Addr, token, []string{goodToken, "Hello"}},
		{"with the certificate", "push", server.HTTP2Addr, cert, []string{goodToken, "Hello"}},
		{"and on the binary protocol", "push", server.PushAddr, cert, []string{goodToken, "Hello"}},
		{"The dead devices", "prune", server.FeedbackAddr, cert, nil},
	} {
		command := []string{"go", "run", "./examples/" + c.program, "-addr", c.addr, "-ca", files.ca}
		command = append(append(command, c.credentials...), c.args...)
		for i, word := range command {
			command[i] = quote(word)
		}
		fmt.Printf("%s:\n\n\t%s\n\n", c.what, strings.Join(command, " "))
	}
	fmt.Printf("A token that begins with bad is rejected as BadDeviceToken. A token that begins\nwith dead is Unregistered, dead since %s. Ctrl-C ends it.\n\n", deadAt.UTC().Format(time.RFC3339))
}

// quote quotes a word for a shell, if it has to be quoted.
func quote(word string) string {
	if !strings.ContainsAny(word, " \t'\"$&()*;<>?[]`{|}~#!") {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// printRecord prints what the server did with a message.
func printRecord(w io.Writer, r apnstest.Record) {
	m := r.Message
	protocol := "HTTP/2"
	if r.Port == apns.PushPort {
		protocol = "binary"
	}
	outcome := r.Outcome.String()
	if pushErr, ok := errors.AsType[*apns.PushError](r.Err); ok {
		outcome = fmt.Sprintf("rejected, %s since %s", pushErr.Reason, pushErr.DeadAt.UTC().Format(time.RFC3339))
	} else if r.Outcome == apnstest.Rejected {
		outcome = "rejected, " + r.Err.Error()
	}
	priority := ""
	if m.Priority != 0 {
		priority = strconv.Itoa(int(m.Priority))
	}
	fmt.Fprintf(w, "%s %s: token %s, topic %s, type %s, priority %s, payload %s\n", protocol, outcome,
		printable(m.Token), printable(m.Topic), printable(string(m.PushType)), printable(priority), printable(string(m.Payload)))
}

// isBinary reports whether a message that was passed to the handler came on the binary
// protocol. Such a message has no topic, and over HTTP/2 every message but a broadcast has one.
func isBinary(m *apns.Message) bool { return m.Topic == "" && m.Channel == "" }

// printable returns a string of a client in a form that is safe to print on one line.
func printable(s string) string {
	switch {
	case s == "":
		return "-"
	case !strconv.CanBackquote(s): // it has control characters, for example
		return strconv.Quote(s)
	}
	return s
}
