// Command local is Apple's push services on this machine: it answers any client,
// and shows what it is sent.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
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
)

const usage = `Local runs a server that stands in for Apple's, for clients in any language:
the HTTP/2 provider API, the binary gateway and the feedback service. It writes
what a client needs into a folder, prints commands to try, and shows each push
as it arrives. Ctrl-C ends it.

	go run ./examples/local [flags]

It accepts every token but two kinds: one that begins with "bad" is a
BadDeviceToken; one that begins with "dead" is Unregistered, or, on the binary
wire, accepted and listed by the feedback service, as Apple's was.

Flags:
`

const (
	goodToken = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"
	deadToken = "dead00c0c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"
)

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
	http2 := flag.Int("http2", 8443, "the `port` of the HTTP/2 provider API; 0 is any that is free, here and below")
	push := flag.Int("push", 2195, "the `port` of the binary gateway")
	feedback := flag.Int("feedback", 2196, "the `port` of the feedback service")
	dir := flag.String("dir", "apns-local", "the `folder` for certificates and keys, new ones each time")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 0 {
		fmt.Fprintf(os.Stderr, "local: got %d arguments, expected none; see local -h\n", flag.NArg())
		return errUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	deadAt := time.Now().Add(-time.Hour).Truncate(time.Second)
	var listed sync.Map // tokens that the feedback service was given
	server := apnstest.NewUnstartedServer(nil)
	server.Handler = func(m *apns.Message) error {
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
	server.AddFeedback(apns.Feedback{Token: deadToken, DeadAt: deadAt}) // for prune to have one
	server.HTTP2Addr, server.PushAddr, server.FeedbackAddr = loopback(*http2), loopback(*push), loopback(*feedback)
	if err := start(server); err != nil {
		return err
	}
	defer server.Close()
	files, err := write(*dir, server.Certificates())
	if err != nil {
		return err
	}
	greet(server, files, deadAt)

	for shown := 0; ; {
		err := server.Wait(ctx, shown+1)
		for _, r := range server.Records()[shown:] {
			show(r)
			shown++
		}
		if err != nil { // which is Ctrl-C
			return nil
		}
	}
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// start starts the server; it panics where a port is taken.
func start(server *apnstest.Server) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v (the flags -http2, -push and -feedback give other ports)", p)
		}
	}()
	server.Start()
	return nil
}

// The files, by their paths.
type paths struct{ ca, serverCert, serverKey, cert, key, p8 string }

// write writes the server's certificates and keys into a folder: into one of its
// own, lest it write over keys that are worth something.
func write(dir string, certs apnstest.Certificates) (paths, error) {
	in := func(name string) string { return filepath.Join(dir, name) }
	p := paths{in("ca.pem"), in("server.pem"), in("server.key"), in("cert.pem"), in("key.pem"), in("AuthKey_" + apnstest.KeyID + ".p8")}
	files := []struct {
		name string
		pem  []byte
		mode os.FileMode
	}{
		{p.p8, certs.AuthKey, 0o600}, // first: by this one it knows the folder next time
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
		for _, f := range files {
			if _, err := os.Lstat(f.name); err == nil {
				return p, fmt.Errorf("%s is there already, and not from this program: give -dir another folder", f.name)
			}
		}
	}
	for _, f := range files {
		os.Remove(f.name) // or else it would keep its mode
		if err := os.WriteFile(f.name, f.pem, f.mode); err != nil {
			return p, err
		}
	}
	return p, nil
}

// greet says what there is, and prints the commands to try.
func greet(server *apnstest.Server, files paths, deadAt time.Time) {
	fmt.Printf(`HTTP/2 provider API  %s
binary gateway       %s
feedback service     %s

To trust:            %s
Provider token:      %s, key ID %s, team ID %s
Or certificate:      %s with %s
Topic:               %s

`, server.HTTP2Addr, server.PushAddr, server.FeedbackAddr,
		files.ca, files.p8, apnstest.KeyID, apnstest.TeamID, files.cert, files.key, apnstest.Topic)
	cert := []string{"-cert", files.cert, "-key", files.key}
	token := []string{"-p8", files.p8, "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID, "-topic", apnstest.Topic}
	for _, c := range []struct {
		what, program, addr string
		credentials, args   []string
	}{
		{"A push over HTTP/2, with a provider token", "push", server.HTTP2Addr, token, []string{goodToken, "1", "Hello"}},
		{"with the certificate", "push", server.HTTP2Addr, cert, []string{goodToken, "1", "Hello"}},
		{"and over the binary wire", "push", server.PushAddr, cert, []string{goodToken, "1", "Hello"}},
		{"The dead devices", "prune", server.FeedbackAddr, cert, nil},
	} {
		command := []string{"go", "run", "./examples/" + c.program, "-addr", c.addr, "-ca", files.ca}
		command = append(append(command, c.credentials...), c.args...)
		for i, word := range command {
			command[i] = quote(word)
		}
		fmt.Printf("%s:\n\n\t%s\n\n", c.what, strings.Join(command, " "))
	}
	fmt.Printf("Tokens that begin with bad are a BadDeviceToken, those that begin with dead are\nUnregistered, dead since %s. Ctrl-C ends it.\n\n", deadAt.UTC().Format(time.RFC3339))
}

// quote quotes a word for a shell, if it needs that.
func quote(word string) string {
	if !strings.ContainsAny(word, " \t'\"$&()*;<>?[]`{|}~#!") {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// show shows what the server did with a message.
func show(r apnstest.Record) {
	m := r.Message
	wire := "HTTP/2"
	switch r.Err.(type) {
	case nil, apns.Status: // not one about a request's header
		if isBinary(m) {
			wire = "binary"
		}
	}
	verdict := r.Outcome.String()
	if pushErr, ok := errors.AsType[*apns.PushError](r.Err); ok {
		verdict = fmt.Sprintf("rejected, %s since %s", pushErr.Reason, pushErr.DeadAt.UTC().Format(time.RFC3339))
	} else if r.Outcome == apnstest.Rejected {
		verdict = "rejected, " + r.Err.Error()
	}
	priority := ""
	if m.Priority != 0 {
		priority = strconv.Itoa(int(m.Priority))
	}
	fmt.Printf("%s %s: token %s, topic %s, type %s, priority %s, payload %s\n", wire, verdict,
		text(m.Token), text(m.Topic), text(string(m.PushType)), text(priority), text(string(m.Payload)))
}

// isBinary reports whether a message that is good enough for a handler came over
// the binary wire, which has no topics.
func isBinary(m *apns.Message) bool { return m.Topic == "" }

// text makes what a client sent fit to be shown.
func text(s string) string {
	switch {
	case s == "":
		return "-"
	case !strconv.CanBackquote(s): // with control characters, for example
		return strconv.Quote(s)
	}
	return s
}
