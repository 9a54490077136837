package apnstest_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns/apnstest"
)

// A jwt is a provider token in the making; what it leaves out is that of a good
// one. See "Establishing a token-based connection to APNs".
type jwt struct {
	key          []byte // .p8
	alg, kid     string
	iss          string
	age          time.Duration
	der          bool // the form of the signature
	iat          string
	cut, padding bool
}

func (j jwt) sign(t *testing.T, s *apnstest.Server) string {
	t.Helper()
	or := func(s, other string) string {
		if s == "" {
			return other
		}
		return s
	}
	if j.key == nil {
		j.key = s.Certificates().AuthKey
	}
	block, _ := pem.Decode(j.key)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	head := fmt.Sprintf(`{"alg":%q,"kid":%q}`, or(j.alg, "ES256"), or(j.kid, apnstest.KeyID))
	claims := fmt.Sprintf(`{"iss":%q,"iat":%s}`, or(j.iss, apnstest.TeamID), or(j.iat, strconv.FormatInt(time.Now().Add(-j.age).Unix(), 10)))
	b := encode([]byte(head)) + "." + encode([]byte(claims))
	if j.cut {
		return "bearer " + b
	}
	digest := sha256.Sum256([]byte(b))
	r, ss, err := ecdsa.Sign(rand.Reader, key.(*ecdsa.PrivateKey), digest[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), ss.FillBytes(make([]byte, 32))...)
	if j.der {
		if signature, err = asn1.Marshal(struct{ R, S *big.Int }{r, ss}); err != nil {
			t.Fatal(err)
		}
	}
	if j.padding {
		return "bearer " + b + "." + base64.URLEncoding.EncodeToString(signature)
	}
	return "bearer " + b + "." + encode(signature)
}

// Provider tokens on one connection: "Establishing a token-based connection to
// APNs".
func TestProviderTokens(t *testing.T) {
	type step struct {
		after time.Duration // the step before
		token string
		want  string
	}
	const (
		good    = "200"
		expired = "403 ExpiredProviderToken"
		invalid = "403 InvalidProviderToken"
		often   = "429 TooManyProviderTokenUpdates"
	)
	for name, steps := range map[string][]step{
		"good":                    {{0, "new", good}},
		"59 minutes old":          {{0, "59m", good}},
		"an hour old":             {{0, "60m", good}},
		"over an hour old":        {{0, "61m", expired}},
		"grows old":               {{0, "new", good}, {time.Hour, "new", good}, {time.Second, "new", expired}},
		"59 minutes ahead":        {{0, "-59m", good}},
		"61 minutes ahead":        {{0, "-61m", invalid}},
		"iat in milliseconds":     {{0, "ms", invalid}},
		"iat a string":            {{0, "string", invalid}},
		"wrong key":               {{0, "wrong key", invalid}},
		"unknown key ID":          {{0, "unknown", invalid}},
		"wrong team":              {{0, "wrong team", invalid}},
		"wrong alg":               {{0, "alg", invalid}},
		"none":                    {{0, "none", invalid}},
		"DER":                     {{0, "DER", invalid}},
		"padded":                  {{0, "padded", invalid}},
		"no signature":            {{0, "cut", invalid}},
		"changed early":           {{0, "new", good}, {19 * time.Minute, "new2", often}, {0, "new", good}},
		"changed in time":         {{0, "new", good}, {20 * time.Minute, "new2", good}},
		"changed back early":      {{0, "new", good}, {20 * time.Minute, "new2", good}, {time.Minute, "new", often}, {19 * time.Minute, "new", good}},
		"changed after a bad one": {{0, "DER", invalid}, {0, "new", good}},
		"changed after old one":   {{0, "61m", expired}, {0, "new", good}},
		"another team":            {{0, "new", good}, {time.Hour, "team", invalid}, {0, "new", good}},
		"another key":             {{0, "new", good}, {time.Hour, "key", "403 UnrelatedKeyIdInToken"}, {0, "new", good}},
		"that other team first":   {{0, "team", good}, {0, "new", invalid}},
		"that other key first":    {{0, "key", good}, {0, "new", "403 UnrelatedKeyIdInToken"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, true, nil, nil)
			otherKey := s.AddAuthKey("OTHERKEY01", apnstest.TeamID)
			otherTeam := s.AddAuthKey("OTHERKEY02", "OTHERTEAM1")
			now := strconv.FormatInt(time.Now().Unix(), 10)
			tokens := map[string]string{
				"new":        jwt{}.sign(t, s),
				"59m":        jwt{age: 59 * time.Minute}.sign(t, s),
				"60m":        jwt{age: 60 * time.Minute}.sign(t, s),
				"61m":        jwt{age: 61 * time.Minute}.sign(t, s),
				"-59m":       jwt{age: -59 * time.Minute}.sign(t, s),
				"-61m":       jwt{age: -61 * time.Minute}.sign(t, s),
				"ms":         jwt{iat: now + "000"}.sign(t, s),
				"string":     jwt{iat: `"` + now + `"`}.sign(t, s),
				"wrong key":  jwt{key: otherKey}.sign(t, s),
				"unknown":    jwt{kid: "UNKNOWN001"}.sign(t, s),
				"wrong team": jwt{iss: "OTHERTEAM1"}.sign(t, s),
				"alg":        jwt{alg: "ES384"}.sign(t, s),
				"none":       jwt{alg: "none"}.sign(t, s),
				"DER":        jwt{der: true}.sign(t, s),
				"padded":     jwt{padding: true}.sign(t, s),
				"cut":        jwt{cut: true}.sign(t, s),
				"team":       jwt{key: otherTeam, kid: "OTHERKEY02", iss: "OTHERTEAM1"}.sign(t, s),
				"key":        jwt{key: otherKey, kid: "OTHERKEY01"}.sign(t, s),
			}
			tokens["new2"] = jwt{age: -time.Second}.sign(t, s)
			c := connect(t, s, false)
			for i, step := range steps {
				time.Sleep(step.after)
				a := request{header: map[string]string{"authorization": tokens[step.token]}}.send(t.Context(), c)
				if a.String() != step.want {
					t.Errorf("%s: step %d: got %v, want %s", name, i, a, step.want)
				}
			}
			if n := len(s.Records()); n != len(steps) {
				t.Errorf("%s: got %d records, want %d", name, n, len(steps))
			}
		})
	}
}
