package examples_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
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

// A client of local needs only its keys and certificates.
func TestLocal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "the files")
	in := func(name string) string { return filepath.Join(dir, name) }
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "local"), "-http2", "0", "-push", "0", "-feedback", "0", "-page-addr", "127.0.0.1:0", "-dir", dir)
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	defer func() {
		cmd.Process.Kill()
		for range lines {
		}
		cmd.Wait()
	}()
	// until returns the next line that has the part in it.
	until := func(part string) string {
		t.Helper()
		timeout := time.After(20 * time.Second)
		for {
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatalf("local ended before it said %q; standard error: %s", part, &stderr)
				}
				if strings.Contains(line, part) {
					return line
				}
			case <-timeout:
				t.Fatalf("local does not say %q", part)
			}
		}
	}
	addr := make(map[string]string)
	for _, service := range []string{"HTTP/2 provider API", "binary gateway", "feedback service"} {
		addr[service] = strings.TrimSpace(strings.TrimPrefix(until(service), service))
	}
	url := strings.TrimSpace(strings.TrimPrefix(until("web page"), "web page"))
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
		if _, stderr, status := run(t, nil, "local", "-keep", "0"); status != 1 || !strings.Contains(stderr, "-keep is 0, expected 1 or more") {
			t.Errorf("without memory: got %q, %d", stderr, status)
		}
		if _, stderr, status := run(t, nil, "local", "x"); status != 2 || !strings.Contains(stderr, "number of arguments is 1, expected none") {
			t.Errorf("got %q, %d; want the usage", stderr, status)
		}
	})

	if runtime.GOOS == "windows" {
		t.Skip("nothing can be interrupted there")
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for range lines { // to the end
	}
	if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("after an interrupt: %v, standard error %q; want none", err, &stderr)
	}
}
