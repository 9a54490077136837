// Command local runs a server that stands in for Apple's push services on this machine. It
// answers any client, and shows each push that it receives. Run local -h for its usage.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
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

It listens on loopback only, unless an address says otherwise: -http2 0.0.0.0:8443
takes clients of other machines. Its certificate has the name, or the IP address,
that a client asks for.

It accepts every token except two kinds. A token that begins with "bad" is
rejected as BadDeviceToken. A token that begins with "dead" is rejected as
Unregistered over HTTP/2, and accepted on the binary protocol, as by Apple's. After
a push over either protocol the feedback service lists it. On the page, and with its
JSON API (docs/local.md), one can set other answers, which take precedence.

Flags:
`

const (
	goodToken = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"
	deadToken = "dead00c0c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"
)

func main() { cli.Exit(run()) }

// A settings has the flags.
type settings struct {
	http2, push, feedback string // addresses to listen on
	page                  string // that of the page; empty: none
	dir                   string
	open                  bool
	keep                  int
}

// maxKeep is the largest value of -keep. A message needs about 1,500 bytes and its payload.
const maxKeep = 1_000_000

func parse() (*settings, error) {
	s := new(settings)
	flag.StringVar(&s.http2, "http2", "8443", "the `address` of the HTTP/2 provider API: host:port, or a port on loopback; port 0 means any free one, for each of the four")
	flag.StringVar(&s.push, "push", "2195", "the `address` of the binary gateway")
	flag.StringVar(&s.feedback, "feedback", "2196", "the `address` of the feedback service")
	flag.StringVar(&s.dir, "dir", "apns-local", "the `folder` for certificates and keys, which are new at each start")
	withPage := flag.Bool("page", true, "serve the web page")
	flag.StringVar(&s.page, "page-addr", "8444", "the `address` of the web page")
	flag.BoolVar(&s.open, "open", false, "open the web page in the browser")
	flag.IntVar(&s.keep, "keep", 10_000, "how many `messages` to keep in memory: the latest, at most 1,000,000")
	if err := cli.Parse(help); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name string
		addr *string
	}{{"http2", &s.http2}, {"push", &s.push}, {"feedback", &s.feedback}, {"page-addr", &s.page}} {
		addr, ok := address(*f.addr)
		if !ok {
			return nil, cli.Usagef("-%s is no address, expected a port from 0 to 65535, or host:port", f.name)
		}
		*f.addr = addr
	}
	if !*withPage {
		s.page = ""
	}
	switch {
	case flag.NArg() != 0:
		return nil, cli.Usagef("number of arguments is %d, expected none", flag.NArg())
	case s.keep < 1 || s.keep > maxKeep:
		return nil, cli.Usagef("-keep is %d, expected 1 to %d", s.keep, maxKeep)
	case s.open && !*withPage:
		return nil, cli.Usagef("-open with -page=false, expected one of them: there is no page to open")
	}
	return s, nil
}

// address returns the address that a flag means. A port alone is one on loopback.
func address(value string) (addr string, ok bool) {
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		host, port = "127.0.0.1", value
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return net.JoinHostPort(host, port), err == nil
}

func run() error {
	s, err := parse()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	server := apnstest.NewUnstartedServer(nil)
	answers := &answers{server: server, deadAt: time.Now().Add(-time.Hour).Truncate(time.Second)}
	server.Handler, server.OnConnect = answers.answer, answers.connected
	server.MaxRecords, server.KeepRaw, server.StreamLimit = s.keep, s.page != "", 1000
	server.AddFeedback(apns.Feedback{Token: deadToken, DeadAt: answers.deadAt}) // so that prune reads at least one
	server.HTTP2Addr, server.PushAddr, server.FeedbackAddr = s.http2, s.push, s.feedback
	if err := start(server); err != nil {
		return err
	}
	defer server.Close()
	files, err := writeFiles(s.dir, server.Certificates())
	if err != nil {
		return err
	}
	url := ""
	if s.page != "" {
		if err := keepAuthorization(ctx, files.authorization, server.Certificates().AuthKey); err != nil {
			return err
		}
		p := &page.Page{Server: server, Rules: &answers.rules, FeedbackCleared: answers.forget, Files: page.Files{
			CA: files.ca, Cert: files.cert, Key: files.key, AuthKey: files.p8, Authorization: files.authorization,
		}}
		if url, err = servePage(ctx, s.page, p); err != nil {
			return err
		}
	}
	warnOfOthers(server)
	printCommands(server, files, answers.deadAt, url)
	if s.open {
		go openBrowser(ctx, url) // ends with the command that it runs, or with this program
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

// warnOfOthers says which services others than programs on this machine can connect to.
func warnOfOthers(server *apnstest.Server) {
	for _, addr := range []string{server.HTTP2Addr, server.PushAddr, server.FeedbackAddr} {
		if ip, err := netip.ParseAddrPort(addr); err == nil && !ip.Addr().IsLoopback() {
			fmt.Fprintf(os.Stderr, "The server is not on loopback: whoever can connect to %s can send messages to it.\n", addr)
		}
	}
}

// Answers are what the server answers: what the rules say, and without a rule what help says.
type answers struct {
	server *apnstest.Server
	deadAt time.Time // of tokens that begin with dead
	rules  page.Rules

	mu     sync.Mutex      // protects following
	listed map[string]bool // dead tokens that were added to the feedback list
}

// maxListed is how many dead tokens are added to the feedback list at most until a client
// reads it.
const maxListed = 10_000

// answer is the handler of the server.
func (a *answers) answer(m *apns.Message) error {
	if err, ok := a.rules.Answer(m); ok {
		return err
	}
	binary, dead := page.IsBinary(m), strings.HasPrefix(m.Token, "dead")
	if dead {
		a.list(m.Token)
	}
	switch {
	case dead && !binary:
		return &apns.PushError{HTTPStatus: 410, Reason: apns.ReasonUnregistered, DeadAt: a.deadAt}
	case !strings.HasPrefix(m.Token, "bad"):
		return nil
	case binary:
		return apns.StatusInvalidToken
	}
	return apns.ReasonBadDeviceToken
}

// list adds a dead token to the feedback list, once. A token that is too long for a feedback
// record is left out.
func (a *answers) list(token string) {
	record := apns.Feedback{Token: token, DeadAt: a.deadAt}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.listed[token] || len(a.listed) >= maxListed || record.Check() != nil {
		return
	}
	if a.listed == nil {
		a.listed = make(map[string]bool)
	}
	a.listed[token] = true
	a.server.AddFeedback(record)
}

// forget makes every dead token be listed again, since the list was emptied.
func (a *answers) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listed = nil
}

// connected is called for each connection. The feedback service sends its list to a client
// once.
func (a *answers) connected(port int, _ tls.ConnectionState) error {
	if port == apns.FeedbackPort {
		a.forget()
	}
	return nil
}

// start starts the server. It returns an error if a port is in use, for which Start panics.
func start(server *apnstest.Server) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v (the flags -http2, -push and -feedback give other addresses)", p)
		}
	}()
	server.Start()
	return nil
}

// paths are the paths of the files that writeFiles writes.
type paths struct{ ca, serverCert, serverKey, cert, key, p8, authorization string }

// writeFiles writes the server's certificates and keys into a folder. The paths that it returns
// are absolute, so that commands and programs can use them in any folder. If the folder has
// files of these names that this program has not written, it returns an error: they may be
// keys that somebody needs.
func writeFiles(dir string, certs apnstest.Certificates) (paths, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return paths{}, err
	}
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
	http2, gateway, feedback := page.Reachable(server.HTTP2Addr), page.Reachable(server.PushAddr), page.Reachable(server.FeedbackAddr)
	fmt.Printf(`HTTP/2 provider API  %s
binary gateway       %s
feedback service     %s
web page             %s

To trust:            %s
Provider token:      %s, key ID %s, team ID %s
Or certificate:      %s with %s
Bundle ID:           %s

`, http2, gateway, feedback, printable(url),
		files.ca, files.p8, apnstest.KeyID, apnstest.TeamID, files.cert, files.key, apnstest.BundleID)
	cert := []string{"-cert", files.cert, "-key", files.key}
	token := []string{"-p8", files.p8, "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID, "-bundle-id", apnstest.BundleID}
	for _, c := range []struct {
		what, program, addr string
		credentials, args   []string
	}{
		{"A push over HTTP/2, with a provider token", "push", http2, token, []string{goodToken, "Hello"}},
		{"with the certificate", "push", http2, cert, []string{goodToken, "Hello"}},
		{"and on the binary protocol", "push", gateway, cert, []string{goodToken, "Hello"}},
		{"The dead devices", "prune", feedback, cert, nil},
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
	if r.Outcome == apnstest.Rejected {
		outcome += ", " + rejection(r.Err)
	}
	priority := ""
	if m.Priority != 0 {
		priority = strconv.Itoa(int(m.Priority))
	}
	fmt.Fprintf(w, "%s %s: token %s, topic %s, type %s, priority %s, payload %s\n", protocol, outcome,
		printable(m.Token), printable(m.Topic), printable(string(m.PushType)), printable(priority), printable(string(m.Payload)))
}

// rejection says why a message was rejected.
func rejection(err error) string {
	if f, ok := errors.AsType[apnstest.Fault](err); ok {
		err = f.Err
	}
	e, ok := errors.AsType[*apns.PushError](err)
	if !ok {
		return err.Error()
	}
	why := string(e.Reason)
	switch {
	case why != "":
	case e.HTTPStatus != 0:
		why = fmt.Sprintf("status %d", e.HTTPStatus)
	default:
		why = e.Status.Error()
	}
	if !e.DeadAt.IsZero() {
		why += " since " + e.DeadAt.UTC().Format(time.RFC3339)
	}
	return why
}

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
