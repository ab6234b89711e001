package config

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
)

const hidden = "(hidden)"

// Secret is a string that never prints. Reveal is the one way to its value.
type Secret string

// Reveal is the secret itself.
func (s Secret) Reveal() string { return string(s) }

// Format hides the secret whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) {
	if s != "" {
		_, _ = io.WriteString(f, hidden)
	}
}

// MarshalJSON hides the secret from encoders, zap's among them.
func (s Secret) MarshalJSON() ([]byte, error) {
	if s == "" {
		return []byte(`""`), nil
	}
	return []byte(`"` + hidden + `"`), nil
}

// Keys are the gossip keys. They never print.
type Keys [][]byte

// Format hides the keys whatever the verb.
func (k Keys) Format(f fmt.State, _ rune) {
	if len(k) > 0 {
		_, _ = io.WriteString(f, hidden)
	}
}

// MarshalJSON hides the keys from encoders.
func (k Keys) MarshalJSON() ([]byte, error) {
	return json.Marshal(fmt.Sprint(k))
}

// URL is an address that may hold a credential in its path, query or user
// information, as those of chat services do; only scheme and host print.
type URL string

// Reveal is the whole address.
func (u URL) Reveal() string { return string(u) }

// Format shows scheme and host whatever the verb.
func (u URL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.short()) }

// MarshalJSON shows scheme and host to encoders.
func (u URL) MarshalJSON() ([]byte, error) { return json.Marshal(u.short()) }

func (u URL) short() string {
	if u == "" {
		return ""
	}
	parsed, err := url.Parse(string(u))
	if err != nil || parsed.Host == "" {
		return hidden
	}
	short := parsed.Scheme + "://" + parsed.Host
	if parsed.Path != "" && parsed.Path != "/" || parsed.RawQuery != "" || parsed.User != nil {
		short += "/…"
	}
	return short
}
