package interop_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// BenchmarkPage measures what the page of examples/local costs. It pushes to a server without
// the page and to one with the page, which a plain client reads or Chromium has open, in turn:
//
//	go test ./interop -run '^$' -bench Page -benchtime 50000x
//
// It reports medians of five rounds of this one run:
//
//   - open/off: the time for a push with the page in Chromium, against without the page
//   - open/off-cpu: the same of the server's processor time alone. Chromium takes a core when it
//     draws, so on a machine with few cores it says more than open/off.
//   - read/off, read/off-cpu: the same, if a client reads the events and draws nothing
//   - off-µs, off-cpu-µs: the time without the page
//   - MB: the resident memory of the server with the page, at its highest
//   - frame-ms, frame-p99-ms: the time between two frames of the page, the median and the 99th
//     percentile
func BenchmarkPage(b *testing.B) {
	program := buildProgram(b, "local")
	off, on := startLocal(b, program, "-page=false"), startLocal(b, program)
	browser := openPage(b, on.page)
	rounds := 5
	if b.N == 1 {
		rounds = 1 // b.N is 1 before it is that of -benchtime
	}
	got := map[string][]float64{}
	add := func(name string, v float64) { got[name] = append(got[name], v) }
	for range rounds {
		browser.show(false)
		wall, cpu := pushToLocal(b, off)
		add("off-µs", wall)
		add("off-cpu-µs", cpu)
		stop := readEvents(b, on.page)
		readWall, readCPU := pushToLocal(b, on)
		stop()
		browser.show(true)
		openWall, openCPU := pushToLocal(b, on)
		add("MB", residentMB(on.pid))
		frames := browser.frames()
		add("frame-ms", frames.Median)
		add("frame-p99-ms", frames.P99)
		add("read/off", readWall/wall)
		add("open/off", openWall/wall)
		if cpu > 0 {
			add("read/off-cpu", readCPU/cpu)
			add("open/off-cpu", openCPU/cpu)
		}
	}
	b.ReportMetric(0, "ns/op") // of all rounds
	for name, values := range got {
		slices.Sort(values)
		v := values[len(values)/2]
		if name == "MB" {
			v = values[len(values)-1]
		}
		b.ReportMetric(v, name)
	}
}

// readEvents reads the events of the page until stop is called, and drops them.
func readEvents(b *testing.B, page string) (stop func()) {
	resp, err := http.Get(page + "/api/events")
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		io.Copy(io.Discard, resp.Body)
		close(done)
	}()
	return func() {
		resp.Body.Close()
		<-done
	}
}

// A browser is Chromium with the page open.
type browser struct {
	b     *testing.B
	in    io.Writer
	lines *bufio.Scanner
}

func openPage(b *testing.B, page string) *browser {
	node, settings := browserSettings(b)
	settings["page"] = page
	argument, err := json.Marshal(settings)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(node, "page-frames.js", string(argument)) // it ends, and Chromium with it, when its input does
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return &browser{b, in, bufio.NewScanner(out)}
}

// show shows the page and begins to measure its frames, or hides it: a page that is hidden
// reads no events.
func (br *browser) show(on bool) {
	br.command(map[bool]string{true: "show", false: "hide"}[on])
}

// pageFrames are the times between frames in ms, since show.
type pageFrames struct {
	Median, P99, Longest float64
	Counts, Shown        string // what the page says
}

func (br *browser) frames() (frames pageFrames) {
	line := br.command("frames")
	if err := json.Unmarshal([]byte(line), &frames); err != nil {
		br.b.Fatal(err)
	}
	br.b.Log(line)
	return frames
}

func (br *browser) command(name string) string {
	fmt.Fprintln(br.in, name)
	if !br.lines.Scan() {
		br.b.Fatalf("the browser does not answer %s", name)
	}
	return br.lines.Text()
}

// pushToLocal pushes b.N messages to many tokens with a Client. It returns the time for a push,
// and the processor time of the server, both in µs.
func pushToLocal(b *testing.B, s *localServer) (wall, cpu float64) {
	file := func(name string) string { return filepath.Join(s.dir, "apns-local", name) }
	key, err := apns.LoadAuthKey(file("AuthKey_"+apnstest.KeyID+".p8"), apnstest.KeyID, apnstest.TeamID)
	if err != nil {
		b.Fatal(err)
	}
	ca, err := os.ReadFile(file("ca.pem"))
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &apns.Client{Addr: s.http2, Config: &apns.Config{TLS: &tls.Config{RootCAs: roots}, Key: key, BundleID: apnstest.BundleID}}
	defer client.Close()
	if err := client.Connect(b.Context()); err != nil {
		b.Fatal(err)
	}
	payload := apns.AlertPayload("Your table for two at 19:30 is confirmed.")
	began, before := time.Now(), cpuSeconds(s.pid)
	for result := range client.PushAll(b.Context(), func(yield func(*apns.Message) bool) {
		for i := range b.N {
			if !yield(&apns.Message{Token: fmt.Sprintf("%064x", i), Payload: payload, PushType: apns.PushTypeAlert}) {
				return
			}
		}
	}) {
		if result.Err != nil {
			b.Fatal(result.Err)
		}
	}
	n := float64(b.N)
	return float64(time.Since(began).Microseconds()) / n, (cpuSeconds(s.pid) - before) * 1e6 / n
}

// cpuSeconds returns the processor time of a process, or 0 where /proc does not say. On a busy
// machine it says more than the time on the clock.
func cpuSeconds(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest) // from the third on
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100 // the kernel counts in hundredths
}

// residentMB returns the resident memory of a process in MB, or 0 where /proc does not say.
func residentMB(pid int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kB, _ := strconv.ParseFloat(strings.Fields(rest + " 0")[0], 64)
	return kB / 1024
}
