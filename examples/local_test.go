package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A localProcess is a running local.
type localProcess struct {
	*testing.T
	cmd    *exec.Cmd
	stderr bytes.Buffer
	lines  chan string // of standard output
}

func startLocal(t *testing.T, args ...string) *localProcess {
	t.Helper()
	p := &localProcess{T: t, cmd: exec.CommandContext(t.Context(), filepath.Join(bin, "local"), args...), lines: make(chan string, 1000)}
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		for range p.lines {
		}
		p.cmd.Wait()
	})
	return p
}

// until returns the next line that has the part in it.
func (p *localProcess) until(part string) string {
	p.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.Fatalf("local ended before it said %q; standard error: %s", part, &p.stderr)
			}
			if strings.Contains(line, part) {
				return line
			}
		case <-timeout:
			p.Fatalf("local does not say %q", part)
		}
	}
}

// addresses returns the addresses that local prints first, by service.
func (p *localProcess) addresses() map[string]string {
	p.Helper()
	addr := make(map[string]string)
	for _, service := range []string{"HTTP/2 provider API", "binary gateway", "feedback service", "web page"} {
		addr[service] = strings.TrimSpace(strings.TrimPrefix(p.until(service), service))
	}
	return addr
}

// A client of local needs only its keys and certificates.
func TestLocal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "the files")
	in := func(name string) string { return filepath.Join(dir, name) }
	local := startLocal(t, "-http2", "0", "-push", "0", "-feedback", "0", "-page-addr", "0", "-dir", dir)
	until, addr := local.until, local.addresses()
	url := addr["web page"]
	if resp, err := http.Get(url); err != nil || resp.StatusCode != 200 {
		t.Errorf("the page at %q: %v, %v", url, resp, err)
	} else {
		resp.Body.Close()
	}
	var commands []string
	for range 4 {
		commands = append(commands, strings.TrimSpace(until("\tgo run ")))
	}
	_, dead, _ := strings.Cut(until("dead since "), "dead since ")
	deadAt, err := time.Parse(time.RFC3339, dead[:len("2006-01-02T15:04:05Z")])
	if err != nil || time.Since(deadAt) < time.Hour || time.Since(deadAt) > 2*time.Hour {
		t.Errorf("dead tokens are dead since %v (%v), want an hour ago", deadAt, err)
	}

	// The files.
	p8 := in("AuthKey_" + apnstest.KeyID + ".p8")
	for _, name := range []string{p8, in("key.pem"), in("server.key")} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
			t.Errorf("%s has mode %v, want -rw-------", name, info.Mode())
		}
	}
	if _, err := tls.LoadX509KeyPair(in("server.pem"), in("server.key")); err != nil {
		t.Error(err)
	}
	cert, err := tls.LoadX509KeyPair(in("cert.pem"), in("key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := apns.LoadAuthKey(p8, apnstest.KeyID, apnstest.TeamID)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if ca, err := os.ReadFile(in("ca.pem")); err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("ca.pem: %v", err)
	}

	// Both protocols, and both kinds of credentials.
	withKey := &apns.Config{TLS: &tls.Config{RootCAs: roots}, Key: key, BundleID: apnstest.BundleID}
	withCert := &apns.Config{TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}}
	bad, unregistered := "bad0"+token[4:], "dead"+token[4:]
	payload := apns.AlertPayload("Grüße")
	for name, config := range map[string]*apns.Config{"key": withKey, "certificate": withCert} {
		conn, err := apns.Dial(t.Context(), addr["HTTP/2 provider API"], config)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer conn.Close()
		m := &apns.Message{Token: token, Payload: payload, PushType: apns.PushTypeAlert, Priority: apns.PriorityPowerSaving}
		if err := conn.WritePushMsg(t.Context(), m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		want := "HTTP/2 accepted: token " + token + ", topic com.example.app, type alert, priority 5, payload " + string(payload)
		if got := until(token); got != want {
			t.Errorf("%s: got  %s\nwant %s", name, got, want)
		}
		m = &apns.Message{Token: bad, Payload: []byte("{\n}"), PushType: apns.PushTypeAlert}
		if err := conn.WritePushMsg(t.Context(), m); !errors.Is(err, apns.ReasonBadDeviceToken) {
			t.Errorf("%s: got %v, want BadDeviceToken", name, err)
		}
		want = "HTTP/2 rejected, BadDeviceToken: token " + bad + `, topic com.example.app, type alert, priority -, payload "{\n}"`
		if got := until(bad); got != want {
			t.Errorf("%s: got  %s\nwant %s", name, got, want)
		}
		m = &apns.Message{Token: unregistered, Payload: payload}
		for range 2 {
			err := conn.WritePushMsg(t.Context(), m)
			pushErr, ok := errors.AsType[*apns.PushError](err)
			if !ok || pushErr.Reason != apns.ReasonUnregistered || !pushErr.DeadAt.Equal(deadAt) {
				t.Errorf("%s: got %v, want Unregistered since %v", name, err, deadAt)
			}
			if got, want := until(unregistered), "HTTP/2 rejected, Unregistered since "+dead[:20]+": "; !strings.HasPrefix(got, want) {
				t.Errorf("%s: got  %s\nwant %s", name, got, want)
			}
		}
	}
	for _, rejected := range []bool{false, true} {
		conn, err := apns.Dial(t.Context(), addr["binary gateway"], withCert)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for i, s := range []string{token, unregistered} {
			if err := conn.WritePushMsg(t.Context(), &apns.Message{ID: uint32(i) + 1, Token: s, Payload: payload}); err != nil {
				t.Error(err)
			}
			if got, want := until(s), "binary accepted: token "+s+", topic -, type -, priority -, payload "+string(payload); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
		if !rejected {
			if err := conn.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			continue
		}
		if err := conn.WritePushMsg(t.Context(), &apns.Message{ID: 3, Token: bad, Payload: payload}); err != nil {
			t.Error(err)
		}
		if got, want := until(bad), "binary rejected, invalid token: token "+bad; !strings.HasPrefix(got, want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		err = conn.Shutdown(t.Context())
		if pushErr, ok := errors.AsType[*apns.PushError](err); !ok || pushErr.ID != 3 || pushErr.Status != apns.StatusInvalidToken {
			t.Errorf("got %v, want message 3 rejected, invalid token", err)
		}
	}

	t.Run("commands", func(t *testing.T) {
		sh, err := exec.LookPath("sh")
		if err != nil {
			t.Skip("no shell to run the commands in")
		}
		for i, want := range []string{"accepted\n", "accepted\n", "accepted\n", unregistered + " dead_at: "} {
			command := strings.ReplaceAll(commands[i], "./examples/", "./")
			out, err := exec.CommandContext(t.Context(), sh, "-c", command).CombinedOutput()
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%s: %v\n%s\nwant %q", commands[i], err, out, want)
			}
			if strings.Contains(command, "./push ") {
				until(" accepted: token c0ffee00")
			}
		}
	})

	t.Run("in the way", func(t *testing.T) {
		dir := t.TempDir()
		own := filepath.Join(dir, "key.pem")
		if err := os.WriteFile(own, []byte("a key of one's own"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, stderr, status := run(t, nil, "local", "-http2", "0", "-push", "0", "-feedback", "0", "-dir", dir)
		if b, _ := os.ReadFile(own); string(b) != "a key of one's own" || status != 1 || !strings.Contains(stderr, "key.pem is there already") {
			t.Errorf("got %q, %d, and the key is now %q; want it left alone", stderr, status, b)
		}
		_, port, _ := strings.Cut(addr["binary gateway"], ":")
		_, stderr, status = run(t, nil, "local", "-http2", "0", "-push", port, "-feedback", "0", "-dir", t.TempDir())
		if status != 1 || !strings.HasPrefix(stderr, "error: apnstest: cannot listen: ") {
			t.Errorf("on a port that is taken: got %q, %d", stderr, status)
		}
		_, stderr, status = run(t, nil, "local", "-http2", "0", "-push", "0", "-feedback", "0", "-page-addr", addr["binary gateway"], "-dir", t.TempDir())
		if status != 1 || !strings.Contains(stderr, "(-page-addr gives the page another address, -page=false leaves it out)") {
			t.Errorf("with the page on a port that is taken: got %q, %d", stderr, status)
		}
		for want, args := range map[string][]string{
			"-keep is 0, expected 1 to 1000000":                                       {"-keep", "0"},
			"-keep is 1000001, expected 1 to 1000000":                                 {"-keep", "1000001"},
			"-keep is invalid, expected a number":                                     {"-keep", "x"},
			"-open with -page=false, expected one of them":                            {"-page=false", "-open"},
			`-page-addr is no address, expected a port from 0 to 65535, or host:port`: {"-page-addr", "x"},
			`-http2 is no address, expected a port from 0 to 65535, or host:port`:     {"-http2", "127.0.0.1"},
			`-push is no address, expected a port from 0 to 65535, or host:port`:      {"-push", "65536"},
			`-feedback is no address, expected a port from 0 to 65535, or host:port`:  {"-feedback", "::1:0"},
			"number of arguments is 1, expected none":                                 {"x"},
		} {
			dir := filepath.Join(t.TempDir(), "new")
			_, stderr, status := run(t, nil, "local", append([]string{"-dir", dir}, args...)...)
			if status != 2 || !strings.Contains(stderr, want) {
				t.Errorf("%v: got %q, %d; want the usage and %q", args, stderr, status, want)
			}
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("%v: it has written files", args)
			}
		}
	})

	if runtime.GOOS == "windows" {
		t.Skip("nothing can be interrupted there")
	}
	if err := local.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for range local.lines { // to the end
	}
	if err := local.cmd.Wait(); err != nil || local.stderr.Len() > 0 {
		t.Errorf("after an interrupt: %v, standard error %q; want none", err, &local.stderr)
	}
}

// Local listens where its flags say, and prints addresses that a client can use. Its
// certificate is for the address that a client connects to.
func TestLocalAddresses(t *testing.T) {
	dir := t.TempDir()
	local := startLocal(t, "-http2", "0.0.0.0:0", "-push", "localhost:0", "-feedback", ":0", "-page-addr", ":0", "-dir", dir)
	addr := local.addresses()
	for service, prefix := range map[string]string{
		"HTTP/2 provider API": "localhost:", "binary gateway": "127.0.0.1:", "feedback service": "localhost:", "web page": "http://localhost:",
	} {
		if addr[service] == strings.Replace(addr[service], prefix, "", 1) && !(service == "binary gateway" && strings.HasPrefix(addr[service], "[::1]:")) {
			t.Errorf("%s is at %s, want %s and a port", service, addr[service], prefix)
		}
	}
	local.until("Ctrl-C ends it.")
	resp, err := http.Get(addr["web page"] + "api/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var status struct{ HTTP2, Curl string }
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil || status.HTTP2 != addr["HTTP/2 provider API"] || !strings.Contains(status.Curl, " https://"+status.HTTP2+"/3/device/") {
		t.Errorf("the page has the address %q and the command %s (%v)", status.HTTP2, status.Curl, err)
	}
	config := &apns.Config{BundleID: apnstest.BundleID, TLS: &tls.Config{RootCAs: x509.NewCertPool()}}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil || !config.TLS.RootCAs.AppendCertsFromPEM(ca) {
		t.Fatal(err)
	}
	if config.Key, err = apns.LoadAuthKey(filepath.Join(dir, "AuthKey_"+apnstest.KeyID+".p8"), apnstest.KeyID, apnstest.TeamID); err != nil {
		t.Fatal(err)
	}
	hosts := []string{"localhost", "127.0.0.1"}
	if runtime.GOOS == "linux" {
		hosts = append(hosts, "127.0.0.2") // every address that begins with 127 is on loopback
	}
	for _, host := range hosts {
		conn, err := apns.Dial(t.Context(), strings.Replace(addr["HTTP/2 provider API"], "localhost", host, 1), config)
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		if err := conn.WritePushMsg(t.Context(), &apns.Message{Token: token, Payload: apns.AlertPayload("Hello")}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
		conn.Close()
	}
	local.cmd.Process.Kill()
	for range local.lines {
	}
	local.cmd.Wait()
	for want, n := range map[string]int{"The server is not on loopback: ": 2, "The page is not on loopback: ": 1} {
		if strings.Count(local.stderr.String(), want) != n {
			t.Errorf("standard error is %q, want %q in it, %d times", &local.stderr, want, n)
		}
	}
}

// Where no browser opens, local says where the page is.
func TestLocalOpen(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the command to open a page has another name there")
	}
	failing := t.TempDir()
	if err := os.WriteFile(filepath.Join(failing, "xdg-open"), []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"the command fails": failing, "there is no command": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(bin, "local"), "-http2", "0", "-push", "0", "-feedback", "0", "-page-addr", "0", "-open", "-dir", t.TempDir())
			cmd.Env = append(os.Environ(), "PATH="+path)
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(stderr).ReadString('\n')
			if url, ok := strings.CutPrefix(line, "no browser could be opened: see http://127.0.0.1:"); !ok || !strings.HasSuffix(url, "/\n") {
				t.Errorf("got %q (%v), want the address of the page", line, err)
			}
			cancel()
			cmd.Wait()
		})
	}
}

// The command that opens the browser gets the address of the page, and nothing else.
func TestLocalOpensThePage(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the command to open a page has another name there")
	}
	dir := t.TempDir()
	opened := filepath.Join(dir, "opened")
	script := "#!/bin/sh\nprintf '%s\\n' \"$@\" end >'" + opened + "'\n"
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	local := startLocal(t, "-http2", "0", "-push", "0", "-feedback", "0", "-page-addr", "0", "-open", "-dir", filepath.Join(dir, "files"))
	want := local.addresses()["web page"] + "\nend\n"
	var got []byte
	for began := time.Now(); !bytes.HasSuffix(got, []byte("end\n")) && time.Since(began) < 20*time.Second; time.Sleep(time.Millisecond) {
		got, _ = os.ReadFile(opened)
	}
	if string(got) != want {
		t.Errorf("the browser was told to open %q, want %q", got, want)
	}
}

// The names of the files are absolute, also if -dir is not: another program runs in another
// folder.
func TestLocalFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	local := startLocal(t, "-http2", "0", "-push", "0", "-feedback", "0", "-page-addr", "0", "-dir", "the files")
	url := local.addresses()["web page"]
	command := local.until("\tgo run ")
	local.until("Ctrl-C ends it.")
	resp, err := http.Get(url + "api/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var status struct {
		CA, Cert, Key, Curl, Push string
		AuthKey                   string `json:"auth_key"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"ca": status.CA, "cert": status.Cert, "key": status.Key, "auth_key": status.AuthKey} {
		if _, err := os.Stat(file); err != nil || !filepath.IsAbs(file) {
			t.Errorf("%s is %q (%v), want the absolute path of a file", name, file, err)
		}
	}
	for _, command := range []string{command, status.Curl, status.Push} {
		if !strings.Contains(command, "'"+status.CA+"'") {
			t.Errorf("got %s, want %s in it, quoted", command, status.CA)
		}
	}
	if !strings.Contains(status.Curl, "'@"+filepath.Join(filepath.Dir(status.CA), "authorization.txt")+"'") {
		t.Errorf("got %s, want the absolute path of authorization.txt in it", status.Curl)
	}
}

// A rejection is printed with what there is to say, and a reset makes dead tokens be listed
// again.
func TestLocalReset(t *testing.T) {
	dir := t.TempDir()
	local := startLocal(t, "-http2", "0", "-push", "0", "-feedback", "0", "-page-addr", "0", "-dir", dir)
	addr := local.addresses()
	local.until("Ctrl-C ends it.")
	call := func(method, path, body string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, addr["web page"]+"api/"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode/100 != 2 {
			t.Fatalf("%s %s: %d %s (%v)", method, path, resp.StatusCode, b, err)
		}
		return string(b)
	}
	config := &apns.Config{TLS: &tls.Config{RootCAs: x509.NewCertPool()}}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil || !config.TLS.RootCAs.AppendCertsFromPEM(ca) {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	config.TLS.Certificates = []tls.Certificate{cert}
	conn, err := apns.Dial(t.Context(), addr["HTTP/2 provider API"], config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	push := func(token string) {
		conn.WritePushMsg(t.Context(), &apns.Message{Token: token, Payload: apns.AlertPayload("Hello")})
	}

	for rule, want := range map[string]string{
		`{"reason":"BadTopic"}`: "BadTopic", `{"status":599}`: "status 599", `{"reason":"Unregistered","delay_ms":1}`: "Unregistered",
		`{"reason":"ExpiredToken","dead_at":"2026-01-02T03:04:05Z"}`: "ExpiredToken since 2026-01-02T03:04:05Z", `{"binary_status":8}`: "invalid token",
	} {
		call("DELETE", "rules", "")
		call("POST", "rules", rule)
		push(token)
		if got := local.until(token); !strings.HasPrefix(got, "HTTP/2 rejected, "+want+": token ") {
			t.Errorf("%s: got %s, want %s", rule, got, want)
		}
	}

	call("POST", "reset", "")
	start := call("GET", "feedback", "")
	dead := "dead01" + token[6:]
	for range 2 {
		push(dead)
		push(dead)
		push("dead" + strings.Repeat("00", 200)) // too long for a feedback record
		if list := call("GET", "feedback", ""); strings.Count(list, `"token"`) != 2 || strings.Count(list, dead) != 1 {
			t.Errorf("got feedback %s, want the token of the start and %s", list, dead)
		}
		call("POST", "reset", "")
		if list := call("GET", "feedback", ""); list != start || strings.Count(list, `"token"`) != 1 {
			t.Errorf("after a reset got feedback %s, want %s", list, start)
		}
	}
	push(dead)
	call("DELETE", "feedback", "")
	push(dead)
	if list := call("GET", "feedback", ""); strings.Count(list, dead) != 1 {
		t.Errorf("after the list was emptied got %s, want %s", list, dead)
	}
	feedback, err := apns.Dial(t.Context(), addr["feedback service"], config)
	if err != nil {
		t.Fatal(err)
	}
	defer feedback.Close()
	for f, err := range feedback.Feedback(t.Context()) {
		if err != nil || f.Token != dead {
			t.Errorf("got %v, %v", f, err)
		}
	}
	push(dead)
	if list := call("GET", "feedback", ""); strings.Count(list, dead) != 1 {
		t.Errorf("after the list was read got %s, want %s", list, dead)
	}
}
