// Package compose holds the tests of the images and of the compose example, on a
// real Docker engine (make test-docker). The example itself is compose.yaml.
package compose
