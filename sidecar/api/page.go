package api

import (
	"bytes"
	"embed"
	"net/http"
	"time"
)

//go:embed page
var pageFiles embed.FS

// contentPolicy allows the page its own script, style and API, and nothing
// else: what a node, a hook or a server's name says cannot become markup or
// code, and no other page can frame ours.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// page serves the status page, which holds no data of its own.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	if name == "" {
		name = "index.html"
	}
	content, err := pageFiles.ReadFile("page/" + name)
	if err != nil {
		fail(w, http.StatusNotFound, "no-such-path", "the status page has no such part")
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
}
