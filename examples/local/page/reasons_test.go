package page_test

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The reasons that the page offers and a rule can have are those of package apns.
func TestReasonsAreComplete(t *testing.T) {
	source, err := os.ReadFile("../../../errors.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^\tReason\w+ +Reason = "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		want = append(want, m[1])
	}
	slices.Sort(want)
	f := newFixture(t, 10)
	var status struct{ Reasons []string }
	f.must("GET", "/api/status", "", &status)
	if len(want) < 30 || !slices.Equal(status.Reasons, want) {
		t.Errorf("got  %v\nwant %v", status.Reasons, want)
	}
	for _, reason := range want {
		f.must("POST", "/api/rules", `{"reason":"`+reason+`"}`, nil)
	}
}

// A filter can ask for the reason of a rule that package apns does not know, also once the rule
// is gone.
func TestNewReasonAsFilter(t *testing.T) {
	f := newFixture(t, 10)
	f.must("POST", "/api/rules", `{"reason":"NewInAppleOS","status":422}`, nil)
	push(t.Context(), f.client(), token, hello)
	f.must("DELETE", "/api/rules", "", nil)
	if got := f.messages("outcome=newinappleos").numbers(); !slices.Equal(got, []int{1}) {
		t.Errorf("got %v, want [1]", got)
	}
}

// A body that has no length at first can be empty, too.
func TestEmptyChunkedBody(t *testing.T) {
	f := newFixture(t, 10)
	for _, path := range []string{"/api/goaway", "/api/reset"} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", f.web.URL+path, io.NopCloser(strings.NewReader("")))
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
		r.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 204 {
			t.Errorf("%s: status %d, want 204", path, resp.StatusCode)
		}
	}
}
