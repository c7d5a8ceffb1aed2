"""Patient identity: pseudonyms, rare descriptions, the search for identifiers, erasing a patient."""
