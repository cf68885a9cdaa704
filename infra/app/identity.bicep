// The one identity of the app. User-assigned, so that the Entra app registration can trust it.

@description('Name of the identity.')
param name string

@description('Azure region.')
param location string

@description('Tags.')
param tags { *: string }

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: name
  location: location
  tags: tags
}

@description('Resource id.')
output id string = identity.id

@description('Client id: what code asks for tokens with.')
output clientId string = identity.properties.clientId

@description('Object id: what roles are given to, and the subject of the federated credential.')
output principalId string = identity.properties.principalId
