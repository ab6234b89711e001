// Package config reads the configuration of tandem from the environment.
//
// There is one struct ([Config]), one table ([Table]) and one way in ([Load]).
// A value that is wrong is an [Error] that names the variable, the value and
// an acceptable example; all of them are reported together, so that a first
// installation is mended in one round. A variable that begins with TANDEM_ and
// is not known is refused, because a setting that is silently ignored is worse
// than one that is refused. Every secret can also be read from a file: the
// variable's name with _FILE appended holds the path. An empty variable counts
// as one that is not set.
//
// Secrets print as (hidden) in every format, so that no log, error or API
// answer can carry one by accident.
package config
