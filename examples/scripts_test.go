package examples_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// objects returns the lines of JSON that push has written. It leaves out the generated IDs, and
// checks that each accepted one over HTTP/2 has them.
func objects(t *testing.T, out string, h2 bool) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(out) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if h2 && o["outcome"] == "accepted" && (o["apns_id"] == nil || o["apns_unique_id"] == nil) {
			t.Errorf("%q has no IDs", line)
		}
		delete(o, "apns_id")
		delete(o, "apns_unique_id")
		all = append(all, o)
	}
	return all
}

func TestPushJSON(t *testing.T) {
	const bad, dead, fault, cut = "bad0", "dead", "fa11", "0c"
	s := apnstest.NewServer(func(m *apns.Message) error {
		switch m.Token {
		case bad:
			return apns.ReasonBadDeviceToken
		case fault:
			return &apns.PushError{HTTPStatus: 502, Reason: "BadGateway"}
		case cut:
			return apnstest.Fault{End: apnstest.EndRST}
		}
		return nil
	})
	defer s.Close()
	s.Unregister(dead, time.Unix(1700000000, 0))
	h2, binary := protocols(t, s)[0].args, protocols(t, s)[1].args
	type object = map[string]any
	const resetText = "in doubt: the server reset the stream (CANCEL)"
	for name, test := range map[string]struct {
		args   []string
		want   object
		status int
	}{
		"accepted": {append(h2, token, "Hi"), object{"token": token, "outcome": "accepted"}, 0},
		"rejected": {append(h2, dead, "Hi"), object{"token": dead, "outcome": "rejected", "reason": "Unregistered", "status": 410.0,
			"dead_at": "2023-11-14T22:13:20Z", "error": "message 1 rejected: Unregistered (HTTP status 410, dead since 2023-11-14T22:13:20Z)"}, 1},
		"retry": {append(h2, fault, "Hi"), object{"token": fault, "outcome": "rejected", "reason": "BadGateway", "status": 502.0, "retry": true,
			"error": "message 1 rejected: BadGateway (HTTP status 502)"}, 1},
		"binary":   {append(binary, bad, "7", "Hi"), object{"token": bad, "outcome": "rejected", "reason": "invalid token", "status": 8.0, "error": "message 7 rejected: invalid token (status 8)"}, 1},
		"in doubt": {append(h2, cut, "Hi"), object{"token": cut, "outcome": "in_doubt", "retry": true, "error": resetText}, 1},
		"invalid":  {append(h2, "xyz0", "Hi"), object{"outcome": "invalid", "error": "token has 'x' at index 0, expected only hexadecimal digits"}, 1},
		"refused": {append(h2, "-team-id", "APNSTESTT2", token, "Hi"), object{"token": token, "outcome": "not_sent", "reason": "InvalidProviderToken", "retry": true,
			"error": "not sent: the server refuses this sender: InvalidProviderToken (HTTP status 403)"}, 1},
		"local": {[]string{"-local", token, "Hi"}, object{"token": token, "outcome": "accepted"}, 0},
	} {
		stdout, stderr, status := run(t, nil, "push", append([]string{"-json"}, test.args...)...)
		if got := objects(t, stdout, true); !reflect.DeepEqual(got, []object{test.want}) || status != test.status || (stderr != "") != (status != 0) {
			t.Errorf("%s: got %v, %q, %d\nwant %v, %d", name, got, stderr, status, test.want, test.status)
		}
	}

	list := strings.Join([]string{token, "xyz0", dead, token, cut}, "\n")
	stdout, stderr, status := run(t, []byte(list), "push", append(h2, "-json", "-tokens", "-", "Hi")...)
	got := objects(t, stdout, true)
	slices.SortFunc(got, func(a, b object) int { return int(a["line"].(float64) - b["line"].(float64)) })
	want := []object{
		{"line": 1.0, "token": token, "outcome": "accepted"},
		{"line": 2.0, "outcome": "invalid", "error": "token has 'x' at index 0, expected only hexadecimal digits"},
		{"line": 3.0, "token": dead, "outcome": "rejected", "reason": "Unregistered", "status": 410.0,
			"dead_at": "2023-11-14T22:13:20Z", "error": "message 3 rejected: Unregistered (HTTP status 410, dead since 2023-11-14T22:13:20Z)"},
		{"line": 5.0, "token": cut, "outcome": "in_doubt", "retry": true, "error": resetText},
	}
	if !reflect.DeepEqual(got, want) || status != 1 {
		t.Errorf("got  %v, %d\nwant %v, 1", got, status, want)
	}
	const summary = "accepted: 1\nrejected: 1\n  Unregistered: 1\nin doubt: 1\ninvalid: 1\nskipped, the same as a line before: 1\n"
	if !strings.HasSuffix(stderr, summary) {
		t.Errorf("got %q on standard error, want %q at its end", stderr, summary)
	}
}

// A line's payload takes the place of the alert text, and stays with its token in the files.
func TestPushPayloadLines(t *testing.T) {
	fault := token[:62] + "ff"
	s := apnstest.NewServer(func(m *apns.Message) error {
		if m.Token == fault && m.PushType == "" { // the binary protocol
			return apns.StatusProcessingError
		}
		if m.Token == fault {
			return &apns.PushError{HTTPStatus: 502, Reason: "BadGateway"}
		}
		return nil
	})
	defer s.Close()
	const own = `{"aps":{"alert":"Hello, Ada"}}`
	large := token + "\t" + `{"aps":{"alert":"` + strings.Repeat("x", 5000) + `"}}`
	all := numbered(50)
	list := strings.Join(append(all, large, token+"\t"+own, fault+" \t "+own+"\r", token+"\t[]"), "\n")
	for _, p := range protocols(t, s) {
		before := len(s.Records())
		dir := t.TempDir()
		retry, accepted := filepath.Join(dir, "retry"), filepath.Join(dir, "accepted")
		stdout, stderr, status := run(t, []byte(list), "push", slices.Concat(p.args, []string{"-tokens", "-", "-retry-file", retry, "-accepted-file", accepted, "Hi"})...)
		if want := "not sent: 1\ninvalid: 1\nto try again: 2, in " + retry + "\n"; !strings.HasPrefix(stdout, "accepted: 51\nrejected: 1\n") || !strings.HasSuffix(stdout, want) || status != 1 {
			t.Errorf("%s: got %q, %q, %d; want %q", p.name, stdout, stderr, status, want)
		}
		if !strings.Contains(stderr, "payload has 5020 bytes, expected at most ") || !strings.Contains(stderr, `standard input:54: payload is not a JSON object, expected {"aps":...}`) {
			t.Errorf("%s: got %q, want what is wrong with two payloads", p.name, stderr)
		}
		for _, r := range s.Records()[before:] {
			want := own
			if slices.Contains(all, r.Message.Token) {
				want = string(apns.AlertPayload("Hi"))
			}
			if got := string(r.Message.Payload); got != want && r.Message.Token != "" {
				t.Errorf("%s: got the payload %s, want %s", p.name, got, want)
			}
		}
		checkLines(t, retry, large, fault+"\t"+own)
		checkLines(t, accepted, append(all, token+"\t"+own)...)
	}
}

// checkLines checks that a file has the lines, in any order.
func checkLines(t *testing.T, name string, want ...string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if !slices.Equal(sorted(got), sorted(want)) {
		t.Errorf("%s: got %.2000q\nwant %.2000q", name, got, want)
	}
}

// Many invalid lines are not all printed, except with -v.
func TestPushManyInvalid(t *testing.T) {
	list := []byte(strings.Repeat("xyz0\n", 100))
	for verbose, want := range map[bool]int{false: 21, true: 100} {
		args := []string{"-local", "-tokens", "-", fmt.Sprintf("-v=%v", verbose), "Hi"}
		stdout, stderr, status := run(t, list, "push", args...)
		if stdout != "accepted: 0\ninvalid: 100\n" || strings.Count(stderr, "\n") != want || status != 1 {
			t.Errorf("-v=%v: got %q, %q, %d; want %d lines", verbose, stdout, stderr, status, want)
		}
	}
}

// A second Ctrl-C kills push. By then each outcome is in its file, and what remains to be sent
// is in the list and not among the accepted: the command in the help finds it.
func TestPushManyKilled(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil || runtime.GOOS == "windows" {
		t.Skip("nothing can be interrupted here")
	}
	const known, silent = 500, 3
	all := numbered(known + silent)
	all[known] += "c0ffee" // contains an accepted token
	failing := all[10]
	s := apnstest.NewServer(func(m *apns.Message) error {
		switch {
		case m.Token == failing:
			return &apns.PushError{HTTPStatus: 502, Reason: "BadGateway"}
		case slices.Contains(all[known:], m.Token):
			return apnstest.Fault{End: apnstest.EndSilence}
		}
		return nil
	})
	defer s.Close()
	list := file(t, "tokens.txt", []byte(strings.Join(all, "\n")+"\n"))
	dir := t.TempDir()
	retry, accepted := filepath.Join(dir, "retry.txt"), filepath.Join(dir, "accepted.txt")
	if err := os.WriteFile(accepted, []byte("c0ffee\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "push"), slices.Concat(protocols(t, s)[0].args,
		[]string{"-json", "-tokens", list, "-retry-file", retry, "-accepted-file", accepted, "Hi"})...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for n, lines := 0, bufio.NewScanner(stdout); n < known; n++ {
		if !lines.Scan() {
			t.Fatalf("push ended after %d outcomes, want %d", n, known)
		}
	}
	cmd.Process.Signal(os.Interrupt)
	warnings := bufio.NewReader(stderr)
	line, err := warnings.ReadString('\n')
	for withoutAdvice(line) == "" && err == nil {
		line, err = warnings.ReadString('\n')
	}
	if line != "interrupted\n" {
		t.Fatalf("got %q, %v; want interrupted", line, err)
	}
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Errorf("got %v, want that a signal has killed push", err)
	}

	checkLines(t, retry, failing)
	checkLines(t, accepted, slices.Concat([]string{"c0ffee"}, all[:10], all[11:known])...)
	out, err := exec.CommandContext(t.Context(), sh, "-c", fmt.Sprintf("grep -vxFf %s %s", accepted, list)).Output()
	if want := slices.Concat([]string{failing}, all[known:]); err != nil || !slices.Equal(strings.Fields(string(out)), want) {
		t.Errorf("remaining: got %q, %v; want %q", out, err, want)
	}
}
