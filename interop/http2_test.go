package interop_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

const timeout = 25 * time.Second // for each test

// A process is a program that runs until the end of the test.
type process struct {
	t     *testing.T
	name  string
	lines chan string // its standard output
	errs  bytes.Buffer
	stop  func() // ends the program and waits until it has ended
	ended chan struct{}
	err   error // the error with which it ended; valid once ended is closed
}

func start(ctx context.Context, t *testing.T, name string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, name, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return run(t, cmd, cancel, out)
}

// startLogged starts a program whose standard output goes to a file.
func startLogged(ctx context.Context, t *testing.T, file, name string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, name, args...)
	log, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout = log
	return run(t, cmd, cancel, strings.NewReader(""))
}

func run(t *testing.T, cmd *exec.Cmd, cancel context.CancelFunc, out io.Reader) *process {
	t.Helper()
	p := &process{t: t, name: filepath.Base(cmd.Path), lines: make(chan string, 1<<14), ended: make(chan struct{})}
	cmd.Stderr = &p.errs
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second // then it is killed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
		p.err = cmd.Wait()
	}()
	p.stop = func() {
		cancel()
		for range p.lines { // lets the reader go on if the channel is full
		}
		<-p.ended
	}
	t.Cleanup(p.stop)
	return p
}

// until returns the program's next line that contains part.
func (p *process) until(ctx context.Context, part string) string {
	p.t.Helper()
	for {
		select {
		case line, ok := <-p.lines:
			switch {
			case !ok:
				<-p.ended
				p.t.Fatalf("%s ended (%v) before it said %q; standard error: %s", p.name, p.err, part, &p.errs)
			case strings.Contains(line, part):
				return line
			}
		case <-ctx.Done():
			p.t.Fatalf("%s does not say %q", p.name, part)
		}
	}
}

// needNode returns the path of node. It skips the test if node or the module is missing.
func needNode(t testing.TB, module string) string {
	t.Helper()
	node := findProgram(t, "node")
	if module != "" {
		if _, err := os.Stat(filepath.Join("node_modules", module)); err != nil {
			t.Skipf("SKIPPED: %s is not installed", module)
		}
	}
	return node
}

// newFiles writes keys and certificates for a server of another author into a folder. It
// returns the folder, and a configuration to dial that server.
func newFiles(t *testing.T) (dir string, config *apns.Config) {
	t.Helper()
	issuer := apnstest.NewServer(nil) // only for its certificates
	defer issuer.Close()
	return writeFiles(t, issuer)
}

// writeFiles is like newFiles, with the keys and certificates of issuer, which trusts them.
func writeFiles(t *testing.T, issuer *apnstest.Server) (dir string, config *apns.Config) {
	t.Helper()
	certs := issuer.Certificates()
	config = issuer.TokenConfig()
	config.DialContext = nil
	block, _ := pem.Decode(certs.AuthKey)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.(*ecdsa.PrivateKey).Public())
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for name, b := range map[string][]byte{
		"ca.pem":     certs.CA,
		"server.pem": certs.ServerCert,
		"server.key": certs.ServerKey,
		"cert.pem":   certs.ClientCert,
		"key.pem":    certs.ClientKey,
		"public.pem": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		// Certificate and key in one file, for HAProxy.
		"server-both.pem": slices.Concat(certs.ServerCert, certs.ServerKey),
		"both.pem":        slices.Concat(certs.ClientCert, certs.ClientKey),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, config
}

func dial(ctx context.Context, t *testing.T, addr string, config *apns.Config) *apns.Conn {
	t.Helper()
	conn, err := apns.Dial(ctx, addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func deviceToken(prefix string) string { return prefix + strings.Repeat("0c", 32-len(prefix)/2) }

// A Conn pushes to nghttpd, which serves files. There is a file for the good token. For the
// other token the answer has status 404, and HTML.
func TestNghttpd(t *testing.T) {
	nghttpd := findProgram(t, "nghttpd")
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	dir, config := newFiles(t)
	good, bad := deviceToken("00"), deviceToken("bad0")
	root := filepath.Join(dir, "3", "device")
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, good), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	addr, server := startListening(ctx, t, func(addr, port string) *process {
		return start(ctx, t, nghttpd, "-v", "-m", "2", "-a", "127.0.0.1", "-d", dir, port, filepath.Join(dir, "server.key"), filepath.Join(dir, "server.pem"))
	})
	conn := dial(ctx, t, addr, config)
	m := &apns.Message{
		ID: 7, Token: good, Payload: apns.AlertPayload("Grüße"), PushType: apns.PushTypeAlert, Priority: apns.PriorityLowest,
		Expiry: time.Unix(0, 0), CollapseID: "score", APNsID: "123e4567-e89b-12d3-a456-4266554400a0",
	}
	if err := conn.WritePushMsg(ctx, m); err != nil {
		t.Errorf("got %v, want it accepted", err)
	}
	var fields []string
	for {
		line := server.until(ctx, "recv ")
		if strings.Contains(line, "recv HEADERS frame") {
			break
		}
		if _, field, ok := strings.Cut(line, "(stream_id=1) "); ok {
			field, _, _ = strings.Cut(field, " eyJ") // the provider token
			fields = append(fields, field)
		}
	}
	slices.Sort(fields)
	want := []string{
		":authority: " + addr, ":method: POST", ":path: /3/device/" + good, ":scheme: https", "apns-collapse-id: score", "apns-expiration: 0",
		"apns-id: 123e4567-e89b-12d3-a456-4266554400a0", "apns-priority: 1", "apns-push-type: alert", "apns-topic: com.example.app",
		"authorization: bearer", "content-length: " + strconv.Itoa(len(m.Payload)),
	}
	if !slices.Equal(fields, want) {
		t.Errorf("nghttpd received %q\nwant %q", fields, want)
	}

	var pushing sync.WaitGroup
	for range 40 { // more than its limit of 2 streams
		pushing.Go(func() {
			if err := conn.WritePushMsg(ctx, &apns.Message{Token: good, Payload: m.Payload}); err != nil {
				t.Errorf("got %v, want it accepted", err)
			}
			err := conn.WritePushMsg(ctx, &apns.Message{ID: 9, Token: bad, Payload: m.Payload})
			pushErr, ok := errors.AsType[*apns.PushError](err)
			if !ok || pushErr.HTTPStatus != 404 || pushErr.ID != 9 || pushErr.Reason != "" {
				t.Errorf("got %v, want message 9 rejected with 404 and no reason", err)
			}
		})
	}
	pushing.Wait()
	if err := conn.CheckForError(); err != nil {
		t.Error(err)
	}
	if err := conn.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// startListening starts a server on a free port, and waits until it listens.
func startListening(ctx context.Context, t *testing.T, start func(addr, port string) *process) (addr string, p *process) {
	t.Helper()
	for try := 0; ; try++ {
		// Few servers can choose a port themselves and print it.
		addr := freeAddr(t)
		_, port, _ := net.SplitHostPort(addr)
		p := start(addr, port)
		if listens(ctx, p, addr) {
			return addr, p
		}
		if try == 3 {
			p.stop()
			t.Fatalf("%s does not start: %v, standard error: %s", p.name, p.err, &p.errs)
		}
	}
}

// freeAddr returns a loopback address on which no process listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// listens waits until the process listens. It returns false if the process ends before.
func listens(ctx context.Context, p *process, addr string) bool {
	for ctx.Err() == nil {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return true
		}
		select {
		case <-p.ended:
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
	return false
}

// A Conn pushes to a server with Node's http2. Its answers are in http2-server.js.
func TestNodeServer(t *testing.T) {
	node := needNode(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	dir, config := newFiles(t)
	server := start(ctx, t, node, "http2-server.js", dir)
	addr := "127.0.0.1:" + server.until(ctx, "")
	push := func(ctx context.Context, conn *apns.Conn, prefix string) error {
		return conn.WritePushMsg(ctx, &apns.Message{ID: 3, Token: deviceToken(prefix), Payload: apns.AlertPayload("Grüße")})
	}

	t.Run("request", func(t *testing.T) {
		noKey := *config
		noKey.Key, noKey.BundleID = nil, ""
		full := &apns.Message{
			Token: deviceToken("00"), Payload: apns.AlertPayload("Grüße"), Topic: "com.example.app.voip", PushType: apns.PushTypeVoIP,
			Priority: apns.PriorityImmediate, Expiry: time.Unix(1700000000, 0), CollapseID: "score", APNsID: "123e4567-e89b-12d3-a456-4266554400a0",
		}
		for _, test := range []struct {
			config *apns.Config
			m      *apns.Message
			want   string // provider token, and the header fields that http2-server.js names
		}{
			{config, full, `"ES256 APNSTESTK1 APNSTESTT1","com.example.app.voip","voip","10","1700000000","score","123e4567-e89b-12d3-a456-4266554400a0"`},
			{config, &apns.Message{Token: full.Token, Payload: full.Payload, Expiry: time.Unix(0, 0)}, `"ES256 APNSTESTK1 APNSTESTT1","com.example.app","alert",null,"0",null,null`},
			{&noKey, &apns.Message{Token: full.Token, Payload: full.Payload}, `"no token",null,"alert",null,null,null,null`},
		} {
			if err := dial(ctx, t, addr, test.config).WritePushMsg(ctx, test.m); err != nil {
				t.Error(err)
			}
			payload, _ := json.Marshal(string(full.Payload))
			want := fmt.Sprintf(`["POST","%s",%s,%s]`, full.Token, test.want, payload)
			if got := server.until(ctx, ""); !sameJSON([]byte(got), want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
	})

	for _, test := range []struct {
		name, prefix string
		outcome      error          // nil: a *PushError
		rejected     apns.PushError // the fields that are checked
		reason       error          // why the connection ended; nil: it has not ended
	}{
		{"rejected", "01", nil, apns.PushError{HTTPStatus: 410, Reason: apns.ReasonUnregistered, DeadAt: time.UnixMilli(1700000000123)}, nil},
		{"GOAWAY, stream not taken", "03", apns.ErrNotSent, apns.PushError{}, apns.ReasonShutdown},
		{"GOAWAY, connection closed", "04", apns.ErrNotSent, apns.PushError{}, apns.ReasonShutdown},
		{"REFUSED_STREAM", "05", apns.ErrNotSent, apns.PushError{}, nil},
		{"reset", "06", apns.ErrInDoubt, apns.PushError{}, nil},
		{"too many", "07", nil, apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 7 * time.Second}, nil},
		{"HTML", "08", nil, apns.PushError{HTTPStatus: 403}, nil}, // TestGatewayErrors has a 502
	} {
		t.Run(test.name, func(t *testing.T) {
			conn := dial(ctx, t, addr, config)
			if err := push(ctx, conn, "00"); err != nil {
				t.Fatal(err)
			}
			err := push(ctx, conn, test.prefix)
			pushErr, ok := errors.AsType[*apns.PushError](err)
			want := test.rejected
			switch {
			case test.outcome != nil && (!errors.Is(err, test.outcome) || ok):
				t.Errorf("got %v, want %v", err, test.outcome)
			case test.outcome == nil && !ok:
				t.Errorf("got %v, want it rejected", err)
			case test.outcome == nil && (pushErr.ID != 3 || pushErr.HTTPStatus != want.HTTPStatus || pushErr.Reason != want.Reason ||
				!pushErr.DeadAt.Equal(want.DeadAt) || pushErr.RetryAfter != want.RetryAfter):
				t.Errorf("got %+v, want %+v", pushErr, want)
			}
			if test.reason == nil {
				if err := conn.CheckForError(); err != nil {
					t.Errorf("the connection has ended: %v", err)
				}
				if err := push(ctx, conn, "00"); err != nil {
					t.Errorf("the next push: got %v, want it accepted", err)
				}
				return
			}
			if !errors.Is(err, test.reason) {
				t.Errorf("got %v, want the reason %v", err, test.reason)
			}
			if err := conn.CheckForError(); !errors.Is(err, test.reason) {
				t.Errorf("CheckForError: got %v, want the reason %v", err, test.reason)
			}
			if err := push(ctx, conn, "00"); !errors.Is(err, apns.ErrNotSent) || !errors.Is(err, test.reason) {
				t.Errorf("the next push: got %v, want ErrNotSent and the reason %v", err, test.reason)
			}
		})
	}

	t.Run("GOAWAY after the last one", func(t *testing.T) {
		conn := dial(ctx, t, addr, config)
		if err := push(ctx, conn, "02"); err != nil {
			t.Errorf("got %v, want it accepted", err)
		}
		if err := conn.CheckForError(); !errors.Is(err, apns.ReasonShutdown) {
			t.Errorf("CheckForError: got %v, want the reason Shutdown", err)
		}
		if err := push(ctx, conn, "00"); !errors.Is(err, apns.ErrNotSent) || !errors.Is(err, apns.ReasonShutdown) {
			t.Errorf("the next push: got %v, want ErrNotSent and the reason Shutdown", err)
		}
		if err := conn.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})

	t.Run("connection lost", func(t *testing.T) {
		conn := dial(ctx, t, addr, config)
		if err := push(ctx, conn, "09"); !errors.Is(err, apns.ErrInDoubt) {
			t.Errorf("got %v, want ErrInDoubt", err)
		}
		if err := conn.CheckForError(); err == nil {
			t.Error("CheckForError says nothing of it")
		}
		if err := push(ctx, conn, "00"); !errors.Is(err, apns.ErrNotSent) {
			t.Errorf("the next push: got %v, want ErrNotSent", err)
		}
	})

	t.Run("many", func(t *testing.T) {
		conn := dial(ctx, t, addr, config)
		var pushing sync.WaitGroup
		for range 100 { // more than its limit of 10 streams
			pushing.Go(func() {
				for range 10 {
					if err := push(ctx, conn, "00"); err != nil {
						t.Errorf("got %v, want it accepted", err)
					}
				}
			})
		}
		pushing.Wait()
	})
}

// Clients of other authors push to examples/local. It is a process of its own, and the clients
// use the files in its folder.
func TestHTTP2Clients(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("SKIPPED: there is no go to build examples/local with")
	}
	bin := t.TempDir()
	build := func(t *testing.T, dir, name string) string {
		t.Helper()
		file := filepath.Join(bin, name+".exe") // only Windows needs the extension
		cmd := exec.CommandContext(t.Context(), goTool, "build", "-o", file, ".")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return file
	}
	local := build(t, filepath.Join("..", "examples", "local"), "local")

	script := func(module, file string) func(t *testing.T) []string {
		return func(t *testing.T) []string { return []string{needNode(t, module), file} }
	}
	nodeAPN := script("@parse/node-apn", "node-apn.js") // 8.1.0
	apns2 := script("apns2", "apns2.js")                // 12.2.0
	sideshow := func(t *testing.T) []string {           // v0.25.0
		cmd := exec.CommandContext(t.Context(), goTool, "mod", "download")
		cmd.Dir = "sideshow"
		cmd.Env = append(os.Environ(), "GOPROXY=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: github.com/sideshow/apns2 is not in the module cache\n%s", out)
		}
		return []string{build(t, "sideshow", "sideshow")}
	}
	for _, test := range []struct {
		name        string
		command     func(t *testing.T) []string
		credentials string
	}{
		{"node-apn", nodeAPN, "key"},
		{"node-apn", nodeAPN, "certificate"},
		{"apns2", apns2, "key"}, // does not support certificates
		{"sideshow", sideshow, "key"},
		{"sideshow", sideshow, "certificate"},
	} {
		t.Run(test.name+"/"+test.credentials, func(t *testing.T) {
			command := test.command(t)
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			dir := t.TempDir()
			server := start(ctx, t, local, "-http2", "0", "-push", "0", "-feedback", "0", "-page=false", "-dir", dir)
			_, port, _ := strings.Cut(server.until(ctx, "HTTP/2 provider API"), ":")
			_, dead, _ := strings.Cut(server.until(ctx, "dead since "), "dead since ")
			deadAt, err := time.Parse(time.RFC3339, dead[:len("2006-01-02T15:04:05Z")])
			if err != nil {
				t.Fatal(err)
			}

			const expired = "rejected, ExpiredProviderToken"
			type push struct{ token, said, shown string } // said by the client, shown by local
			pushes := func(offset string, pushes ...push) {
				t.Helper()
				args := append(command[1:len(command):len(command)], dir, port, test.credentials, offset)
				for _, p := range pushes {
					args = append(args, p.token)
				}
				client := start(ctx, t, command[0], args...)
				for _, p := range pushes {
					if got, want := strings.TrimSpace(client.until(ctx, "")), p.said; got != want {
						t.Errorf("client: got %q, want %q", got, want)
					}
					shown := server.until(ctx, "token "+p.token)
					want := fmt.Sprintf("HTTP/2 %s: token %s, topic com.example.app, type alert, priority 5, payload ", p.shown, p.token)
					payload, ok := strings.CutPrefix(shown, want)
					ok = ok && sameJSON([]byte(payload), `{"aps":{"alert":"Grüße","badge":1}}`)
					if p.shown == expired { // local checks the provider token first
						ok = strings.HasPrefix(shown, "HTTP/2 "+expired+": token "+p.token)
					}
					if !ok {
						t.Errorf("local: got  %s\nwant %s...", shown, want)
					}
				}
				<-client.ended
				if client.err != nil || client.errs.Len() > 0 {
					t.Errorf("client: %v, standard error %q", client.err, &client.errs)
				}
			}
			good, bad, gone := deviceToken("00"), deviceToken("bad0"), deviceToken("dead")
			pushes("0",
				push{good, "accepted " + good, "accepted"},
				push{bad, "rejected 400 BadDeviceToken " + bad, "rejected, BadDeviceToken"},
				push{gone, fmt.Sprintf("rejected 410 Unregistered %s %d", gone, deadAt.UnixMilli()), "rejected, Unregistered since " + dead[:20]},
				push{deviceToken("ff"), "accepted " + deviceToken("ff"), "accepted"},
			)
			if test.credentials == "key" {
				pushes("-7200", push{good, "rejected 403 ExpiredProviderToken " + good, expired})
			}
		})
	}
}
