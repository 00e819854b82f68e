# The option reference, nix/options.md, made from the modules with nixpkgs' `lib` alone:
#   nix-instantiate --eval --json -E 'import nix/option-docs.nix { lib = import <nixpkgs/lib>; }' | jq -r . >nix/options.md
{ lib }:
let
  evaluated = lib.evalModules {
    specialArgs.pkgs = { };
    modules = [
      ./modules
      { _module.check = false; }
    ];
  };
  listed = lib.filter (option: option.visible && !option.internal) (
    lib.optionAttrSetToDocList evaluated.options.services.lapidary
  );
  # An option that was not documented would end the evaluation here.
  entry = option: ''
    ## `${option.name}`

    ${lib.trim (text option.description)}

    - Type: ${option.type}${lib.optionalString option.readOnly " (read only)"}
    ${lib.optionalString (option ? default) "- Default: ${value option.default}\n"}${
      lib.optionalString (option ? example) "- Example: ${value option.example}\n"
    }'';
  text = it: if lib.isString it then it else it.text;
  value =
    it:
    if it._type or "" == "literalMD" then
      text it
    else
      "`${lib.concatStringsSep " " (lib.filter (word: word != "") (lib.splitString " " (lib.replaceStrings [ "\n" ] [ " " ] (text it))))}`";
in
''
  <!-- Made by nix/option-docs.nix. -->

  # Options

  ${lib.concatMapStringsSep "\n" entry (lib.sort (a: b: a.name < b.name) listed)}''
